"""Curves along depth as SVG: a mean, its interval, the photos' percentiles."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

import numpy as np

from naflow_fx.dataset.aggregate import Depth, Floats

WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 6, 8, 20
LOGARITHMIC = ("mean", "max", "norm_ratio")  # compared by ratio
DECADES = 6  # a logarithmic axis shows at most so many below its top


def curve(depth: Depth, layers: Sequence[str]) -> str:
    """One measure over the layers; each layer tells its numbers when pointed at."""
    log = depth.name in LOGARITHMIC
    low, high = _limits(depth, log)
    x, y = _scale(0, len(layers) - 1, LEFT, WIDTH - RIGHT), _height(low, high, log)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">']
    for value in _ticks(low, high, log):
        at = y(value)
        parts.append(
            f"<line class=grid x1={LEFT} x2={WIDTH - RIGHT} y1={at:.1f} y2={at:.1f} />"
            f"<text x={LEFT - 6} y={at + 4:.1f} text-anchor=end>{_number(value)}</text>"
        )
    parts.append(_band("wideband", depth.low, depth.high, x, y))
    parts.append(_band("band", depth.mean - depth.error, depth.mean + depth.error, x, y))
    points = " ".join(
        f"{x(i):.1f},{y(m):.1f}" for i, m in enumerate(depth.mean) if math.isfinite(m)
    )
    parts.append(f'<polyline class=mean points="{points}" />')
    ends = ((LEFT, "start", layers[0]), (WIDTH - RIGHT, "end", layers[-1]))
    parts += [f'<text x={at} y={HEIGHT - 5} text-anchor={side}>{escape(name)}</text>'
              for at, side, name in ends]  # fmt: skip
    return "".join([*parts, *_tips(depth, layers, x), "</svg>"])


def _band(name: str, low: Floats, high: Floats, x: _Place, y: _Place) -> str:
    """A filled band, where both edges are numbers."""
    known = [i for i in range(len(low)) if math.isfinite(low[i]) and math.isfinite(high[i])]
    edge = [f"{x(i):.1f},{y(high[i]):.1f}" for i in known]
    edge += [f"{x(i):.1f},{y(low[i]):.1f}" for i in reversed(known)]
    return f'<polygon class={name} points="{" ".join(edge)}" />'


def _tips(depth: Depth, layers: Sequence[str], x: _Place) -> list[str]:
    """A strip a layer, with its numbers as the tip."""
    width = (WIDTH - LEFT - RIGHT) / max(len(layers) - 1, 1)
    found = []
    for i, layer in enumerate(layers):
        text = (f"{layer}: {depth.mean[i]:.3g} ± {depth.error[i]:.2g}; photos "
                f"{depth.low[i]:.3g} to {depth.high[i]:.3g}")  # fmt: skip
        found.append(
            f"<rect class=hit x={x(i) - width / 2:.1f} y={TOP} width={width:.1f} "
            f"height={HEIGHT - TOP - BOTTOM}><title>{escape(text)}</title></rect>"
        )
    return found


_Place = Callable[[float], float]


def _limits(depth: Depth, log: bool) -> tuple[float, float]:
    """The axis's ends: all percentiles and means; from 0 or up to 1 where that is near."""
    values = np.concatenate([depth.low, depth.high, depth.mean])
    values = values[np.isfinite(values)]
    if log:
        values = values[values > 0]
        if not len(values):
            return 0.1, 1.0
        top = float(values.max())
        return max(float(values.min()), top * 10.0**-DECADES) * 0.9, top * 1.1
    top = float(values.max())
    return min(0.0, float(values.min())), 1.0 if 0.5 < top <= 1 else top * 1.05 or 1.0


def _height(low: float, high: float, log: bool) -> _Place:
    if not log:
        return _scale(low, high, HEIGHT - BOTTOM, TOP)
    place = _scale(math.log10(low), math.log10(high), HEIGHT - BOTTOM, TOP)
    return lambda value: place(math.log10(max(value, low)))


def _scale(low: float, high: float, start: float, end: float) -> _Place:
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _ticks(low: float, high: float, log: bool) -> list[float]:
    """Round numbers on the axis, three to six."""
    if log:
        first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
        every = max(1, (last - first + 3) // 4)
        decades = [10.0**e for e in range(first, last + 1, every)]
        return decades if len(decades) > 1 else [low / 0.9, high / 1.1]
    rough = (high - low) / 4
    size = 10.0 ** math.floor(math.log10(rough))
    step: float = min(
        (s * size for s in (1, 2, 2.5, 5, 10) if s * size >= rough * 0.99), default=size
    )
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]


def _number(value: float) -> str:
    return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e") if 0 < value < 0.01 else (
        f"{value:.3g}")  # fmt: skip
