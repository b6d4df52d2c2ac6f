"""Parts: rows as Parquet files that pandas or pyarrow read alone, each whole or not there."""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from naflow_fx.dataset import MAP, MEASURES, STAGES
from naflow_fx.dataset.decode import Photo
from naflow_fx.errors import DatasetError
from naflow_fx.files import replacing

KEY = b"naflow_fx"  # of the file's own metadata: JSON
SCALARS = {"prediction": pa.int64(), "probability": pa.float32(), "score": pa.float64(),
           "target": pa.int64()}  # fmt: skip
FIXED = {
    "position": pa.int64(),
    "id": pa.string(),
    "sha256": pa.string(),
    "height": pa.int32(),
    "width": pa.int32(),
    "label": pa.int64(),
    **SCALARS,
}
UNKNOWN = ("label", "prediction", "target")  # -1 in these is null in the file
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Layout:
    """What all parts of a run are made of, as explainer.json has it.

    Attributes:
        identity: of the explainer, what must be the same in all processes: hashes, options.
        layers: call site -> shape (H, W) of its maps, in forward order; () for one value.
        stored: the call sites whose maps are stored.
        class_names: () where unknown.
    """

    identity: Mapping[str, Any]
    layers: Mapping[str, tuple[int, ...]]
    stored: tuple[str, ...]
    class_names: tuple[str, ...]

    @property
    def sizes(self) -> dict[str, int]:
        """Values of a stored map: call site -> H W."""
        return {name: math.prod(self.layers[name]) for name in self.stored}


@dataclass(frozen=True)
class Rows:
    """Results of the photos of a batch that could be explained, n of them.

    Attributes:
        photos: which.
        arrays: "prediction", "probability", "score", "target": [n].  "measures": [n, 6, layers]
            float32, `MEASURES`; NaN where a method has no such number.  "maps": [n, values]
            float16, the stored maps one behind the other, each divided by its largest value.
        failed: the batch's other photos.
        seconds: that the device worked.
    """

    photos: list[Photo]
    arrays: dict[str, Any]
    failed: list[Photo]
    seconds: float


def as_table(part: int, job: str, batches: Sequence[Rows], layout: Layout) -> pa.Table:
    """The rows of a part's batches, one a photo; as metadata what the part says of itself.

    That is its number, its job's hash, layers and shapes, and the photos that have no row.
    """
    kind = schema(layout)
    tables = [_table(rows, layout, kind) for rows in batches if rows.photos]
    facts = {
        "part": part,
        "job": job,
        "layers": list(layout.layers),
        "shapes": layout.layers,
        "failed": [_failure(photo) for rows in batches for photo in rows.failed],
    }
    found = pa.concat_tables([kind.empty_table(), *tables]).combine_chunks()
    return found.replace_schema_metadata({KEY: json.dumps(facts)})


def schema(layout: Layout) -> pa.Schema:
    """Columns of every part: one number each, one list a measure, one fixed binary a map."""
    lists = pa.list_(pa.float32(), len(layout.layers))
    maps = [
        pa.field(MAP + name, pa.binary(2 * size), metadata={
            "shape": json.dumps(layout.layers[name]), "dtype": "<f2",
            "unit": "share of the map's largest value, the list `max`"})
        for name, size in layout.sizes.items()
    ]  # fmt: skip
    fixed = [pa.field(name, kind) for name, kind in FIXED.items()]
    return pa.schema([*fixed, *(pa.field(name, lists) for name in MEASURES), *maps])


def _table(rows: Rows, layout: Layout, kind: pa.Schema) -> pa.Table:
    """The rows of one batch."""
    photos, arrays = rows.photos, rows.arrays
    columns: dict[str, Any] = {
        "position": [photo.position for photo in photos],
        "id": [photo.id for photo in photos],
        "sha256": [photo.sha256 for photo in photos],
        "height": [photo.size[0] for photo in photos],
        "width": [photo.size[1] for photo in photos],
        "label": [photo.label for photo in photos],
        **{name: arrays[name] for name in SCALARS},
    }
    columns |= {name: np.ma.masked_less(columns[name], 0) for name in UNKNOWN}
    for i, name in enumerate(MEASURES):
        values = pa.array(arrays["measures"][:, i].ravel())
        columns[name] = pa.FixedSizeListArray.from_arrays(values, len(layout.layers))
    start = 0
    for name, size in layout.sizes.items():  # of the bytes of [n, H W], without a copy a row
        block = np.ascontiguousarray(arrays["maps"][:, start : start + size], "<f2")
        columns[MAP + name] = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(2 * size), len(photos), [None, pa.py_buffer(block)]
        )
        start += size
    return pa.Table.from_pydict(columns, kind)


def maps_of(column: pa.ChunkedArray, shape: Sequence[int]) -> NDArray[np.float16]:
    """The maps of a column, [n, *shape]."""
    size = math.prod(shape)
    blocks = [
        np.frombuffer(chunk.buffers()[1], "<f2")[chunk.offset * size :][: len(chunk) * size]
        for chunk in column.chunks
        if len(chunk)
    ]
    return np.concatenate(blocks or [np.zeros(0, np.float16)]).reshape(-1, *shape)


def _failure(photo: Photo) -> dict[str, Any]:
    """A line of failed.jsonl."""
    return {"position": photo.position, "id": photo.id, "reason": photo.error,
            "sha256": photo.sha256 or None}  # fmt: skip


def part_name(part: int) -> str:
    """The file of a part."""
    return f"part-{part:06d}.parquet"


def write_part(folder: Path, part: int, table: pa.Table, tag: str) -> None:
    """The part's file: under another name, flushed to the disk, then renamed.

    Raises:
        DatasetError: the disk is full.  OSError: it can't be written.
    """
    try:
        with (
            replacing(folder / part_name(part), f"{STAGES}{tag}-", durable=True) as stage,
            open(stage, "wb") as file,
        ):
            pq.write_table(table, file, compression="zstd", compression_level=1,
                           use_dictionary=False, write_statistics=list(FIXED),
                           write_page_checksum=True)  # fmt: skip
    except OSError as error:
        if error.errno in FULL:
            raise DatasetError(f"{folder}: no space left ({error.strerror}); free some and call "
                               "again: finished parts are kept") from error  # fmt: skip
        raise


def read_facts(path: Path) -> tuple[dict[str, Any], int]:
    """What a part says of itself, and its number of rows, from the file's end alone.

    Raises:
        ValueError, KeyError, TypeError, OSError: damaged, or not a part.
    """
    found = pq.read_metadata(path)
    return json.loads((found.metadata or {})[KEY]), found.num_rows
