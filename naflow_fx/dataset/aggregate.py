"""What a run's rows say together: classes, depth, unusual photos, residuals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas
from numpy.typing import NDArray

from naflow_fx.dataset import MAP, MEASURES
from naflow_fx.dataset.results import Results, maps_of

Floats = NDArray[np.float64]
Measures = dict[str, pandas.DataFrame]  # measure -> a row a photo, a column a layer
NORMAL = 1.96  # standard errors on either side of a mean: 95 % of the time the truth lies inside
UNUSUAL = MEASURES[2:]  # of the map alone: those that make a photo unusual
RATIOS = ("norm_ratio", "mean", "max")  # measures that are compared by ratio


def depths(measures: Measures) -> Measures:
    """Curves of every measure that has a number; a row a layer, NaN where it lacks.

    Columns: `mean` over the photos, `error`, half of the mean's 95 % interval, and `low` and
    `high`, the tenth and ninetieth percentile of the photos.
    """
    found = {}
    for name, frame in measures.items():
        error = NORMAL * frame.std(ddof=0) / np.sqrt(frame.count().clip(lower=1))
        percentiles = frame.quantile([0.1, 0.9]).T.set_axis(["low", "high"], axis=1)
        found[name] = percentiles.assign(mean=frame.mean(), error=error)
    return {name: curve for name, curve in found.items() if curve["mean"].notna().any()}


def unusual(measures: Measures, count: int) -> pandas.DataFrame:
    """The photos that are furthest from the median photo, furthest first, by their row's number.

    Columns: `distance`, the mean over measures and layers of |value - median| in units of the
    spread of the photos (1.4826 median absolute deviations), each cut at 10; `where`, the three
    (measure, layer) that are furthest.  `mean` and `max` go in by their logarithms: they are
    compared by ratio.  Fewer than eight photos have no usual.
    """
    distances = pandas.concat({name: _distances(name, measures[name]) for name in UNUSUAL}, axis=1)
    total = distances.mean(axis=1).sort_values(ascending=False, kind="stable")
    found = total.head(count if len(total) >= 8 else 0).to_frame("distance")
    furthest = [distances.loc[row].nlargest(3).index.to_list() for row in found.index]
    return found.assign(where=furthest)


def _distances(name: str, values: pandas.DataFrame) -> pandas.DataFrame:
    """Distances from the median of each layer [rows, layers], robust, at most 10; 0 for NaN."""
    if name in RATIOS:
        values = np.log(np.maximum(values, 1e-30))
    centre = values.median()
    away = (values - centre).abs()
    scale = np.maximum(1.4826 * away.median(), 1e-6 + 1e-3 * centre.abs())
    return (away / scale).fillna(0).clip(0, 10)


def worst_residuals(residual: pandas.DataFrame, count: int) -> list[dict[str, Any]]:
    """The layers with the largest median residual: layer, median, p90, share above 0.9."""
    found = residual.quantile([0.5, 0.9]).T.set_axis(["median", "p90"], axis=1)
    found["poor"] = (residual > 0.9).sum() / residual.count()
    worst = found[found["median"] > 0].sort_values("median", ascending=False, kind="stable")
    rows: list[Any] = worst.head(count).rename_axis("layer").reset_index().to_dict("records")
    return rows


def mean_maps(
    results: Results, layers: Sequence[str], classes: Sequence[int]
) -> dict[tuple[int, str], Floats]:
    """Mean over a class's photos of the maps of layers: (predicted class, layer) -> [H, W].

    Each map counts by the share of its own largest value.  One part is in memory at a time.
    """
    columns = ["prediction", *(MAP + layer for layer in layers)]
    count, sums = np.zeros(len(classes)), dict.fromkeys(layers, np.zeros(()))
    for table in results.tables(columns):
        predicted = table["prediction"].fill_null(-1).to_numpy()
        chosen = (np.asarray(classes)[:, None] == predicted).astype(float)  # [classes, rows]
        count += chosen.sum(1)
        for layer in layers:
            maps = np.nan_to_num(maps_of(table[MAP + layer], results.shapes[layer]).astype(float))
            sums[layer] = sums[layer] + np.tensordot(chosen, maps, 1)
    return {(one, layer): total[i] / max(count[i], 1)
            for layer, total in sums.items() for i, one in enumerate(classes)}  # fmt: skip
