"""Parts: rows as Parquet files that pandas or pyarrow read alone, each whole or not there."""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from naflow_fx.dataset import MAP, MEASURES
from naflow_fx.dataset.decode import Photo
from naflow_fx.errors import DatasetError
from naflow_fx.files import replacing

KEY = b"naflow_fx"  # of the file's own metadata: JSON
# Of these a whole number below 0 is unknown, null in the file.
FIXED = {
    "position": pa.int64(),
    "id": pa.string(),
    "sha256": pa.string(),
    "height": pa.int32(),
    "width": pa.int32(),
    "label": pa.int64(),
    "prediction": pa.int64(),
    "probability": pa.float32(),
    "score": pa.float64(),
    "target": pa.int64(),
}
FAILURE = ("position", "id", "reason", "sha256")  # a line of failed.jsonl
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


@dataclass(frozen=True)
class Rows:
    """Results of the n photos of a batch.

    Attributes:
        photos: which; those with a reason have no row.
        arrays: column -> [n]; of measures [n, layers] float32, NaN where a method has no such
            number; of stored maps [n, H W] float16, each divided by its largest value.  What they
            have of photos without a row means nothing; {} where none could be opened.
        seconds: that the device worked.
    """

    photos: list[Photo]
    arrays: dict[str, NDArray[Any]]
    seconds: float

    @property
    def failed(self) -> list[Photo]:
        """The photos without a row."""
        return [photo for photo in self.photos if photo.reason is not None]

    @property
    def counts(self) -> tuple[int, int, float]:
        """Photos, those of them without a row, and seconds."""
        return len(self.photos), len(self.failed), self.seconds


def as_table(part: int, job: str, batches: Sequence[Rows], layout: Layout) -> pa.Table:
    """The rows of a part's batches, one a photo; as metadata what the part says of itself.

    That is its number, its job's hash, layers and shapes, and the photos that have no row.
    """
    kind = schema(layout)
    tables = [_table(rows, kind) for rows in batches if rows.arrays]
    facts = {
        "part": part, "job": job, "layers": list(layout.layers), "shapes": layout.layers,
        "failed": [{name: getattr(photo, name) for name in FAILURE}
                   for rows in batches for photo in rows.failed],
    }  # fmt: skip
    found = pa.concat_tables([kind.empty_table(), *tables]).combine_chunks()
    return found.replace_schema_metadata({KEY: json.dumps(facts)})


def schema(layout: Layout) -> pa.Schema:
    """Columns of every part: one number each, one list a measure, one fixed binary a map."""
    lists = pa.list_(pa.float32(), len(layout.layers))
    maps = [
        pa.field(MAP + name, pa.binary(2 * math.prod(layout.layers[name])), metadata={
            "shape": json.dumps(layout.layers[name]), "dtype": "<f2",
            "unit": "share of the map's largest value, the list `max`"})
        for name in layout.stored
    ]  # fmt: skip
    fixed = [pa.field(name, kind) for name, kind in FIXED.items()]
    return pa.schema([*fixed, *(pa.field(name, lists) for name in MEASURES), *maps])


def _table(rows: Rows, kind: pa.Schema) -> pa.Table:
    """The rows of one batch."""
    of_photo = {f.name: [getattr(photo, f.name) for photo in rows.photos] for f in fields(Photo)}
    values: dict[str, Any] = {**of_photo, **rows.arrays}
    columns = [_column(values[field.name], field.type) for field in kind]
    good = pa.array([photo.reason is None for photo in rows.photos])
    return pa.Table.from_arrays(columns, schema=kind).filter(good)


def _column(values: Any, kind: pa.DataType) -> pa.Array:
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), kind.list_size)
    if pa.types.is_fixed_size_binary(kind):  # the bytes of [n, H W], without a copy a row
        data = pa.py_buffer(np.ascontiguousarray(values, "<f2"))
        return pa.FixedSizeBinaryArray.from_buffers(kind, len(values), [None, data])
    known = np.ma.masked_less(values, 0) if pa.types.is_integer(kind) else values
    return pa.array(known, kind)


def part_name(part: int) -> str:
    """The file of a part."""
    return f"part-{part:06d}.parquet"


def write_part(folder: Path, part: int, table: pa.Table, draft: str) -> None:
    """The part's file: in a folder whose name begins with `draft`, flushed, then renamed.

    Raises:
        DatasetError: the disk is full.  OSError: it can't be written.
    """
    try:
        with (
            replacing(folder / part_name(part), draft, durable=True) as stage,
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
