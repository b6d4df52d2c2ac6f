"""Two runs compared, paired by photo: where do their networks part, and on which photos most."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from naflow_fx.dataset.results import Results, open_results
from naflow_fx.errors import DatasetError
from naflow_fx.flow import measures
from naflow_fx.flow.statistics import DepthTable, pairs_of

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False)
class Parting:
    """A photo that two runs explain differently.

    Attributes:
        id: of the photo, in the first run.
        agreement: mean over layers.
        layer: where it is least, and `least`, the agreement there.
        predictions: of both runs, -1 where there is none.
    """

    id: str
    agreement: float
    layer: str
    least: float
    predictions: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Difference:
    """What `diff` found.

    Attributes:
        runs: both runs.
        table: of N photos at L pairs of layers: "agreement" of the maps (where both runs have
            stored them), "spread A", "spread B" and "B - A", their difference.
        ids: N names of photos, in the first run.
        predictions: int64 [2, N], -1 where there is none.
    """

    runs: tuple[Results, Results]
    table: DepthTable
    ids: list[str]
    predictions: NDArray[np.int64]

    def partings(self, count: int = 10) -> list[Parting]:
        """The photos whose maps agree least, least first; none where no maps are stored."""
        import pandas

        values = pandas.DataFrame(self.table.values["agreement"].numpy())
        means = values.mean(axis=1).dropna().sort_values(kind="stable").head(count)
        found = []
        for row, mean in means.items():
            at = values.loc[row].idxmin()
            both = (int(self.predictions[0, row]), int(self.predictions[1, row]))
            least = float(values.loc[row, at])
            found.append(Parting(self.ids[row], mean, self.table.layers[at], least, both))
        return found

    @property
    def differ(self) -> int:
        """Photos of which the runs predict different classes."""
        return int((self.predictions[0] != self.predictions[1]).sum())


def diff(first: str | Path | Results, second: str | Path | Results) -> Difference:
    """Compares two batch runs of the same photos, paired by what their files hold (SHA-256).

    Layers are paired by relative depth, as `naflow_fx.agreement` does; of equally many, one to
    one.  Agreement is computed from the stored maps, float16.

    Args:
        first: a folder of `naflow-fx batch`, or `naflow_fx.open_results` of it.
        second: another one.

    Raises:
        DatasetError: not such folders, no photo in both, or no layer with a map.
    """
    one, two = runs = open_results(first), open_results(second)
    both = _paired(*(run.pandas(["id", "sha256", "prediction", "spread"]) for run in runs))
    if both.empty:
        raise DatasetError(f"{one.path} and {two.path}: no photo is in both; pairs have files of "
                           "the same content")  # fmt: skip
    pairs = pairs_of(one.spatial, two.spatial)
    if not pairs:
        raise DatasetError(f"{one.path}, {two.path}: no layer with a map of several positions")
    rows = both[["row_x", "row_y"]].to_numpy().T
    at = np.array([(one.layers.index(a), two.layers.index(b)) for a, b in pairs])
    first_spread = np.stack(both["spread_x"])[:, at[:, 0]]
    second_spread = np.stack(both["spread_y"])[:, at[:, 1]]
    values = {
        "agreement": np.stack([_agreement(runs, pair, rows) for pair in pairs], 1),
        "spread A": first_spread,
        "spread B": second_spread,
        "B - A": second_spread - first_spread,
    }
    layers = tuple(a if a == b else f"{a} | {b}" for a, b in pairs)
    table = DepthTable(layers, {n: torch.from_numpy(x).double() for n, x in values.items()})
    predictions = both[["prediction_x", "prediction_y"]].fillna(-1).to_numpy(int).T
    return Difference(runs, table, both["id_x"].to_list(), predictions)


def _paired(first: pandas.DataFrame, second: pandas.DataFrame) -> pandas.DataFrame:
    """Rows of the same file in both, columns of both; copies of one file pair in their order."""
    one, two = (
        frame.assign(copy=frame.groupby("sha256").cumcount(), row=range(len(frame)))
        for frame in (first, second)
    )
    return one.merge(two, on=["sha256", "copy"])


def _agreement(
    runs: tuple[Results, Results], layers: tuple[str, str], rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Agreement of the stored maps of a pair of layers, [N]; NaN where they are not stored.

    rows: of both runs, [2, N].
    """
    if any(layer not in run.stored for run, layer in zip(runs, layers, strict=True)):
        return np.full(rows.shape[1], np.nan)
    maps = [torch.from_numpy(run.maps(layer)[row].astype(np.float32))
            for run, layer, row in zip(runs, layers, rows, strict=True)]  # fmt: skip
    return np.asarray(measures.agreement(*maps).numpy())
