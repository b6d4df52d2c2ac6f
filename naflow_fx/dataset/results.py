"""`open_results`: the rows of a run as pandas, xarray or torch see them, read when asked for."""

from __future__ import annotations

import bisect
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from naflow_fx.dataset import EXPLAINER, MANIFEST, MAP, MEASURES, PARTS, Last, required
from naflow_fx.errors import DatasetError
from naflow_fx.flow.statistics import Statistics, table_of
from naflow_fx.selection import evenly, matching

if TYPE_CHECKING:
    import pandas
    import pyarrow
    import xarray

SAMPLE = 512  # photos of which `statistics_of` computes, at most


class Results:
    """The results in a folder of `explain_dataset`, of a run that still goes on, too.

    Attributes:
        path: the folder.
        manifest: the job, where its source lies, versions.
        explainer: layers, shapes, class names, hashes.
        files: the parts.
        shapes: call site -> shape of its maps, in forward order.
        layers: call sites in the order of the lists `residual`, `mean`, ...
        stored: call sites whose maps are stored.
        class_names: words for the classes, or [].
    """

    def __init__(self, path: str | Path) -> None:
        """Reads the two small files; rows are read by the views.

        Raises:
            DatasetError: not such a folder, or no part is finished yet.
        """
        required("pyarrow.parquet", "open_results")
        self.path = Path(path)
        self.manifest = _read(self.path / MANIFEST)
        self.explainer = _read(self.path / EXPLAINER)
        self.files = sorted((self.path / PARTS).glob("part-*.parquet"))
        if not self.files:
            raise DatasetError(f"{self.path}: no part is finished yet; repeat the call that began "
                               "the run")  # fmt: skip
        shapes = self.explainer["layers"].items()
        self.shapes: dict[str, tuple[int, ...]] = {name: tuple(shape) for name, shape in shapes}
        self.layers = list(self.shapes)
        self.stored: list[str] = self.explainer["stored"]
        self.class_names: list[str] = self.explainer["class_names"]

    @property
    def model(self) -> str:
        """What explained the photos: a network's name, an artefact's, or that of a `make`."""
        made = self.manifest["job"]["explainer"]
        return str(made.get("model") or made.get("artefact") or made.get("make"))

    @property
    def spatial(self) -> list[str]:
        """Those of `layers` whose maps have several positions."""
        return [name for name, shape in self.shapes.items() if math.prod(shape) > 1]

    @cached_property
    def _facts(self) -> list[tuple[dict[str, Any], int]]:
        """What each file says of itself, and its number of rows."""
        from naflow_fx.dataset.parts import read_facts

        return [read_facts(file) for file in self.files]

    @property
    def failed(self) -> list[dict[str, Any]]:
        """Photos without a row: position, id, reason, sha256."""
        return [line for facts, _ in self._facts for line in facts["failed"]]

    @property
    def counts(self) -> list[int]:
        """Rows of each file."""
        return [rows for _, rows in self._facts]

    def __len__(self) -> int:
        """Number of rows."""
        return sum(self.counts)

    @property
    def complete(self) -> bool:
        """Whether every photo of the job has a row or a reason why not."""
        return len(self) + len(self.failed) == int(self.manifest["job"]["photos"])

    def __repr__(self) -> str:
        photos = self.manifest["job"]["photos"]
        return (f"Results({str(self.path)!r}: {len(self)} rows, {len(self.failed)} failed, of "
                f"{photos} photos; {len(self.layers)} layers)")  # fmt: skip

    def columns(self) -> list[str]:
        """All columns but the maps."""
        import pyarrow.parquet as pq

        return [n for n in pq.read_schema(self.files[0]).names if not n.startswith(MAP)]

    def table(self, part: int, columns: Sequence[str]) -> pyarrow.Table:
        """The rows of the part-th file; OSError if a checksum doesn't fit."""
        import pyarrow.parquet as pq

        return pq.read_table(self.files[part], columns=list(columns), partitioning=None,
                             page_checksum_verification=True)  # fmt: skip

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pyarrow.Table]:
        """One Arrow table a part, of these columns; None: of all but the maps."""
        wanted = self.columns() if columns is None else columns
        return (self.table(part, wanted) for part in range(len(self.files)))

    def pandas(self, columns: Sequence[str] | None = None) -> pandas.DataFrame:
        """A row a photo, in the source's order; the measures are arrays [layers].

        Args:
            columns: some of them; None: all but the maps.
        """
        required("pandas", "results.pandas")
        import pyarrow as pa

        return pa.concat_tables(self.tables(columns)).to_pandas()

    def maps(self, layer: str, raw: bool = False) -> NDArray[np.floating[Any]]:
        """The maps of a layer, [rows, H, W], in the order of `pandas`.

        Args:
            layer: a call site, one of `stored`.
            raw: float32, as the explainer gave them up to the rounding of float16; else float16,
                each divided by its largest value.

        Raises:
            DatasetError: no such layer, or its maps are not stored.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        name = self._stored([layer])[0]
        table = pa.concat_tables(self.tables([MAP + name, "max"]))
        found = maps_of(table[MAP + name], self.shapes[name])
        if not raw:
            return found
        largest = pc.list_element(table["max"], self.layers.index(name)).to_numpy()
        values: NDArray[np.float32] = found * largest.reshape(-1, *[1] * (found.ndim - 1))
        return values

    def statistics(
        self, layers: str | Sequence[str] = "*", parts: Sequence[int] | None = None
    ) -> Statistics:
        """Spread, scatter, agreement and settling depth of all rows, of the stored maps, float16.

        As `AttentionFlow.statistics`; printed, means with 95 % intervals. One part is in memory.

        Args:
            layers: names and globs of stored call sites; agreement is with the last of them.
            parts: numbers of the files whose rows count; None: all.

        Raises:
            DatasetError: no such layer, or its maps are not stored.
            FlowError: no row, or no layer whose map has several positions.
        """
        wanted = self._stored(layers)
        files = range(len(self.files)) if parts is None else parts
        return Statistics.joined(
            table_of({
                layer: torch.from_numpy(maps_of(table[MAP + layer], self.shapes[layer])).float()
                for layer in wanted
            })
            for table in (self.table(part, [MAP + layer for layer in wanted]) for part in files)
            if table.num_rows
        )  # fmt: skip

    def xarray(self, layers: str | Sequence[str] = ()) -> xarray.Dataset:
        """Dimensions `photo` and `layer`; maps of the layers asked for (names, globs) as variables.

        The maps' variables are named as in the files, `map.<layer>`, with dimensions of their own.
        """
        xr = required("xarray", "results.xarray")
        frame = self.pandas()
        data: dict[str, Any] = {name: ("photo", frame[name].to_numpy())
                                for name in frame if name not in (*MEASURES, "id")}  # fmt: skip
        for name in MEASURES:
            data[name] = (("photo", "layer"), np.stack(frame[name].to_list()))
        for layer in self._stored(layers):
            axes = [f"axis{i}.{layer}" for i in range(len(self.shapes[layer]))]
            data[MAP + layer] = (("photo", *axes), self.maps(layer))
        coords = {"photo": frame["id"].to_numpy(), "layer": self.layers}
        found: xarray.Dataset = xr.Dataset(data, coords, {"job": self.manifest["hash"]})
        return found

    def torch(self, layers: str | Sequence[str] = "*") -> TorchRows:
        """A map-style Dataset of dictionaries: a row's numbers, and "maps": layer -> [H, W].

        One part is kept in memory: read in order, or shuffle within parts.
        """
        return TorchRows(self, self._stored(layers))

    def _stored(self, layers: str | Sequence[str]) -> list[str]:
        """The stored layers that names and globs mean; DatasetError for one that means none."""
        globs = [layers] if isinstance(layers, str) else list(layers)
        found, idle = matching(self.stored, globs)
        if idle and idle != ["*"]:
            raise DatasetError(f"{self.path}: no maps of {', '.join(map(repr, idle))} are stored; "
                               f"stored: {', '.join(self.stored[:8]) or 'none'}")  # fmt: skip
        return found


class TorchRows(Dataset[dict[str, Any]]):
    """Row number -> dictionary of numbers, texts and tensors.

    "label", "prediction", "target": -1 where unknown.  Measures: [layers].  "maps": layer ->
    [H, W] float16, each divided by its largest value, "max".
    """

    def __init__(self, results: Results, layers: Sequence[str]) -> None:
        """All rows of results, with the maps of layers that are stored."""
        self.maps = {MAP + layer: results.shapes[layer] for layer in layers}
        self.columns = (*results.columns(), *self.maps)
        self.ends, self.read = list(itertools.accumulate(results.counts)), Last(results.table)

    def __len__(self) -> int:
        """Number of rows."""
        return self.ends[-1]

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One row."""
        index = range(len(self))[index]
        part = bisect.bisect_right(self.ends, index)
        at = index - (self.ends[part - 1] if part else 0)
        row = self.read(part, self.columns).slice(at, 1)
        maps = {
            name.removeprefix(MAP): torch.from_numpy(maps_of(row[name], shape)[0].copy())
            for name, shape in self.maps.items()
        }
        (found,) = row.drop_columns([*self.maps]).to_pylist()
        return {**{name: _known(value) for name, value in found.items()}, "maps": maps}


def _known(value: Any) -> Any:
    """A text as it is, numbers as a tensor."""
    return value if isinstance(value, str) else torch.tensor(-1 if value is None else value)


def maps_of(column: pyarrow.ChunkedArray, shape: Sequence[int]) -> NDArray[np.float16]:
    """The maps of a column, [n, *shape]."""
    size = math.prod(shape)
    blocks = [
        np.frombuffer(chunk.buffers()[1], "<f2")[chunk.offset * size :][: len(chunk) * size]
        for chunk in column.chunks
        if len(chunk)
    ]
    return np.concatenate(blocks or [np.zeros(0, np.float16)]).reshape(-1, *shape)


def open_results(path: str | Path | Results) -> Results:
    """The results in a folder that `explain_dataset` or `naflow-fx batch` wrote; see `Results`."""
    return path if isinstance(path, Results) else Results(path)


def statistics_of(results: Results, layers: int) -> Statistics | None:
    """Statistics of stored maps: of so many layers and `SAMPLE` photos, evenly along both.

    Photos are whole files of the run.  None where no map of several positions is stored.
    """
    spatial = [name for name in results.spatial if name in results.stored]
    full = [part for part, count in enumerate(results.counts) if count]
    if not spatial or not full:
        return None
    files = max(2, SAMPLE // max(results.counts))
    return results.statistics(evenly(spatial, layers), evenly(full, files))


def no_row(results: Results) -> DatasetError:
    """The error of a run without a row: it tells the reason of the first photo's."""
    first = results.failed[0]
    return DatasetError(f"{results.path}: no photo has a row; the first, {first['id']}: "
                        f"{first['reason']}; all of them are in failed.jsonl")  # fmt: skip


def _read(path: Path) -> dict[str, Any]:
    """A JSON object of the folder."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DatasetError(f"{path.parent}: not a folder of results, or nothing is finished yet "
                           f"(no {path.name})") from error  # fmt: skip
    except ValueError as error:
        raise DatasetError(f"{path}: damaged ({error})") from error
    return dict(found)
