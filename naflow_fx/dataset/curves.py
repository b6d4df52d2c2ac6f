"""Curves along depth: where the mean, its interval and the photos' percentiles are drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
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

    def y(values: Any) -> Floats:
        ends = np.array([low, high])
        if log:
            values, ends = np.log10(np.maximum(values, low)), np.log10(ends)
        return np.interp(values, ends, [HEIGHT - BOTTOM, TOP])

    x = np.linspace(LEFT, WIDTH - RIGHT, len(layers))
    strip = (WIDTH - LEFT - RIGHT) / max(len(layers) - 1, 1)
    tips = [f"{layer}: {mean:.3g} ± {error:.2g}; photos {least:.3g} to {most:.3g}"
            for layer, mean, error, least, most in zip(
                layers, depth.mean, depth.error, depth.low, depth.high, strict=True)
            ]  # fmt: skip
    return {
        "width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT, "top": TOP,
        "bottom": HEIGHT - BOTTOM, "first": layers[0], "last": layers[-1],
        "ticks": [{"y": round(float(y(v)), 1), "text": _number(v)} for v in _ticks(low, high, log)],
        "percentiles": _band(x, y(depth.low), y(depth.high)),
        "interval": _band(x, y(depth.mean - depth.error), y(depth.mean + depth.error)),
        "mean": _points(x, y(depth.mean)),
        "tips": [{"x": round(at - strip / 2, 1), "width": round(strip, 1), "text": text}
                 for at, text in zip(x.tolist(), tips, strict=True)],
    }  # fmt: skip


def _points(x: Floats, y: Floats) -> str:
    """The places that are numbers."""
    places = zip(x, y, strict=True)
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in places if math.isfinite(b))


def _band(x: Floats, low: Floats, high: Floats) -> str:
    """The corners of a filled band, where both edges are numbers."""
    known = np.isfinite(low + high)
    x, low, high = x[known], low[known], high[known]
    return _points(np.r_[x, x[::-1]], np.r_[high, low[::-1]])


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
    return min(0.0, float(values.min())), 1.0 if 0.5 < top <= 1 else max(top * 1.05, 0) or 1.0


def _ticks(low: float, high: float, log: bool) -> list[float]:
    """Round numbers on the axis, three to six."""
    if log:
        first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
        every = max(1, (last - first + 3) // 4)
        decades = [10.0**e for e in range(first, last + 1, every)]
        return decades if len(decades) > 1 else [low / 0.9, high / 1.1]
    rough = (high - low) / 4
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(s * size for s in (1, 2, 2.5, 5, 10) if s * size >= rough * 0.99)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]


def _number(value: float) -> str:
    return f"{value:.0e}".replace("e-0", "e-") if 0 < value < 0.01 else f"{value:.3g}"
