"""Curves along depth: where the mean, its interval and the photos' percentiles are drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from naflow_fx.dataset.aggregate import Depth, Floats

WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 6, 8, 20
LOGARITHMIC = ("mean", "max", "norm_ratio")  # compared by ratio
DECADES = 6  # a logarithmic axis shows at most so many below its top


def curve(depth: Depth, layers: Sequence[str]) -> dict[str, Any]:
    """One measure over the layers, as the template draws it; lengths in pixels."""
    log = depth.name in LOGARITHMIC
    low, high = _limits(depth, log)
    x, y = _scale(0, len(layers) - 1, LEFT, WIDTH - RIGHT), _height(low, high, log)
    strip = (WIDTH - LEFT - RIGHT) / max(len(layers) - 1, 1)
    known = [(i, m) for i, m in enumerate(depth.mean) if math.isfinite(m)]
    return {
        "width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT, "top": TOP,
        "bottom": HEIGHT - BOTTOM, "first": layers[0], "last": layers[-1],
        "ticks": [{"y": round(y(v), 1), "text": _number(v)} for v in _ticks(low, high, log)],
        "percentiles": _band(depth.low, depth.high, x, y),
        "interval": _band(depth.mean - depth.error, depth.mean + depth.error, x, y),
        "mean": _points((x(i), y(m)) for i, m in known),
        "tips": [{"x": round(x(i) - strip / 2, 1), "width": round(strip, 1),
                  "text": _tip(depth, layer, i)} for i, layer in enumerate(layers)],
    }  # fmt: skip


def _points(places: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _band(low: Floats, high: Floats, x: _Place, y: _Place) -> str:
    """The corners of a filled band, where both edges are numbers."""
    known = [i for i in range(len(low)) if math.isfinite(low[i]) and math.isfinite(high[i])]
    upper = [(x(i), y(high[i])) for i in known]
    return _points([*upper, *((x(i), y(low[i])) for i in reversed(known))])


def _tip(depth: Depth, layer: str, i: int) -> str:
    return (f"{layer}: {depth.mean[i]:.3g} ± {depth.error[i]:.2g}; photos "
            f"{depth.low[i]:.3g} to {depth.high[i]:.3g}")  # fmt: skip


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
