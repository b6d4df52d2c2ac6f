"""Curves along depth: where the mean, its interval and the photos' percentiles are drawn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas

from naflow_fx.dataset.aggregate import RATIOS, Floats

DECADES = 6  # a logarithmic axis shows at most so many below its top


def curve(name: str, depth: pandas.DataFrame) -> dict[str, Any]:
    """A measure over the layers, one of `aggregate.depths`, as the template draws it.

    Places are shares of both axes, from the left and from below; a layer has a tip.
    """
    log = name in RATIOS
    low, high = _limits(depth, log)

    def y(values: Any) -> Floats:
        ends = np.array([low, high])
        if log:
            values, ends = np.log10(np.maximum(values, low)), np.log10(ends)
        return np.asarray(np.interp(values, ends, [0, 1]))

    x, mean, error = np.linspace(0, 1, len(depth)), depth["mean"], depth["error"]
    return {
        "first": depth.index[0], "last": depth.index[-1],
        "ticks": [(float(y(value)), _number(value)) for value in _ticks(low, high, log)],
        "percentiles": _band(x, y(depth["low"]), y(depth["high"])),
        "interval": _band(x, y(mean - error), y(mean + error)),
        "mean": _places(x, y(mean)),
        "tips": [f"{layer}: {one['mean']:.3g} ± {one['error']:.2g}; photos {one['low']:.3g} to "
                 f"{one['high']:.3g}" for layer, one in depth.iterrows()],
    }  # fmt: skip


def _places(x: Floats, y: Floats) -> list[tuple[float, float]]:
    """Those that are numbers."""
    return [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(b)]


def _band(x: Floats, low: Floats, high: Floats) -> list[tuple[float, float]]:
    """The corners of a filled band, where both edges are numbers."""
    known = np.isfinite(low + high)
    x, low, high = x[known], low[known], high[known]
    return _places(np.r_[x, x[::-1]], np.r_[high, low[::-1]])


def _limits(depth: pandas.DataFrame, log: bool) -> tuple[float, float]:
    """The axis's ends: all percentiles and means; from 0 or up to 1 where that is near."""
    values = depth[["low", "high", "mean"]].to_numpy()
    values = values[values > 0] if log else values[np.isfinite(values)]
    if not len(values):
        return 0.1, 1.0
    least, top = float(values.min()), float(values.max())
    if log:
        return max(least, top * 10.0**-DECADES) * 0.9, top * 1.1
    return min(0.0, least), 1.0 if 0.5 < top <= 1 else max(top * 1.05, 0) or 1.0


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
