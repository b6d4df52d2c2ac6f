"""Parts: rows as Parquet files that pandas or pyarrow read alone, each whole or not there."""

from __future__ import annotations

import errno
import json
import math
import os
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from naflow_fx.dataset.decode import Photo
from naflow_fx.dataset.runner import MEASURES, Layout, Rows
from naflow_fx.errors import DatasetError

KEY = b"naflow_fx"  # of the file's own metadata: JSON
MAP = "map."  # before a layer's name: the column of its maps
FIXED = (
    ("position", pa.int64()),
    ("id", pa.string()),
    ("sha256", pa.string()),
    ("height", pa.int32()),
    ("width", pa.int32()),
    ("label", pa.int64()),
    ("prediction", pa.int64()),
    ("probability", pa.float32()),
    ("score", pa.float64()),
    ("target", pa.int64()),
)
UNKNOWN = ("label", "prediction", "target")  # -1 in these is null in the file
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class PartFacts:
    """What a part's file says of itself.

    Attributes:
        part: its number.
        job: hash of the job that it belongs to.
        layers: call sites in the order of the lists; shapes: of their maps.
        failed: the photos of its positions that have no row, as in failed.jsonl.
    """

    part: int
    job: str
    layers: list[str]
    shapes: dict[str, list[int]]
    failed: list[dict[str, Any]]


def part_name(part: int) -> str:
    """The file of a part."""
    return f"part-{part:06d}.parquet"


def as_table(part: int, job: str, batches: Sequence[Rows], layout: Layout) -> pa.Table:
    """The rows of a part's batches, one a photo, with `PartFacts` as metadata."""
    full = [rows for rows in batches if rows.photos]
    photos = [photo for rows in full for photo in rows.photos]
    failed = [failure(photo) for rows in batches for photo in rows.failed]
    shapes = {name: list(shape) for name, shape in layout.shapes.items()}
    facts = PartFacts(part, job, list(shapes), shapes, failed)
    metadata = {KEY: json.dumps(asdict(facts))}
    columns = [*_fixed(photos, full), *_measures(full, layout), *_maps(full, layout)]
    return pa.Table.from_arrays(columns, schema=schema(layout).with_metadata(metadata))


def schema(layout: Layout) -> pa.Schema:
    """Columns of every part: one number each, one list a measure, one fixed binary a map."""
    lists = pa.list_(pa.float32(), len(layout.shapes))
    maps = [
        pa.field(MAP + name, pa.binary(2 * size), metadata={
            "shape": json.dumps(list(layout.shapes[name])), "dtype": "<f2",
            "unit": "share of the map's largest value, the list `max`"})
        for name, size in layout.sizes.items()
    ]  # fmt: skip
    fixed = [pa.field(name, kind) for name, kind in FIXED]
    return pa.schema([*fixed, *(pa.field(name, lists) for name in MEASURES), *maps])


def failure(photo: Photo) -> dict[str, Any]:
    """A line of failed.jsonl."""
    return {"position": photo.position, "id": photo.id, "reason": photo.error,
            "sha256": photo.sha256 or None}  # fmt: skip


def _fixed(photos: Sequence[Photo], full: Sequence[Rows]) -> list[pa.Array]:
    values: dict[str, Any] = {
        "position": [photo.position for photo in photos],
        "id": [photo.id for photo in photos],
        "sha256": [photo.sha256 for photo in photos],
        "height": [photo.size[0] for photo in photos],
        "width": [photo.size[1] for photo in photos],
        "label": np.array([photo.label for photo in photos], np.int64),
    }
    for name in ("prediction", "probability", "score", "target"):
        values[name] = np.concatenate([rows.scalars[name] for rows in full] or [np.zeros(0)])
    return [
        pa.array(values[name], kind, mask=values[name] < 0 if name in UNKNOWN else None)
        for name, kind in FIXED
    ]


def _measures(full: Sequence[Rows], layout: Layout) -> list[pa.Array]:
    count = len(layout.shapes)
    empty = np.zeros((0, len(MEASURES), count), np.float32)
    values = np.concatenate([rows.measures for rows in full] or [empty])
    return [
        pa.FixedSizeListArray.from_arrays(pa.array(values[:, i].ravel()), count)
        for i in range(len(MEASURES))
    ]


def _maps(full: Sequence[Rows], layout: Layout) -> list[pa.Array]:
    """Columns of fixed binaries, made of the bytes of [n, H W] float16, without a copy a row."""
    empty = np.zeros((0, sum(layout.sizes.values())), np.float16)
    values = np.concatenate([rows.maps for rows in full] or [empty])
    columns, start = [], 0
    for size in layout.sizes.values():
        block = np.ascontiguousarray(values[:, start : start + size], dtype="<f2")
        kind, data = pa.binary(2 * size), pa.py_buffer(block.tobytes())
        columns.append(pa.FixedSizeBinaryArray.from_buffers(kind, len(block), [None, data]))
        start += size
    return columns


def maps_of(column: pa.ChunkedArray, shape: Sequence[int]) -> NDArray[np.float16]:
    """The maps of a column, [n, *shape]."""
    size = math.prod(shape)
    blocks = [
        np.frombuffer(chunk.buffers()[1], "<f2")[chunk.offset * size :][: len(chunk) * size]
        for chunk in column.chunks
        if len(chunk)
    ]
    return np.concatenate(blocks or [np.zeros(0, np.float16)]).reshape(-1, *shape)


def write_part(folder: Path, table: pa.Table, tag: str) -> None:
    """The part's file: a temporary name, flushed to the disk, then renamed.

    Raises:
        DatasetError: the disk is full.  OSError: it can't be written.
    """
    facts = facts_of(table.schema.metadata)
    plain = [name for name, _ in FIXED]
    stage = folder / f".tmp-{tag}-{uuid.uuid4().hex}"
    try:
        with open(stage, "wb") as file:
            pq.write_table(table, file, compression="zstd", compression_level=1,
                           use_dictionary=False, write_statistics=plain,
                           write_page_checksum=True)  # fmt: skip
            file.flush()
            flush(file.fileno())
        os.replace(stage, folder / part_name(facts.part))
        flush_folder(folder)
    except OSError as error:
        stage.unlink(missing_ok=True)
        if error.errno in FULL:
            raise DatasetError(f"{folder}: no space left ({error.strerror}); free some and call "
                               "again: finished parts are kept") from error  # fmt: skip
        raise


def write_text(path: Path, text: str) -> None:
    """A small file, whole or not at all, and on the disk when this returns."""
    stage = path.with_name(f".tmp-{uuid.uuid4().hex}")
    try:
        with open(stage, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            flush(file.fileno())
        os.replace(stage, path)
        flush_folder(path.parent)
    finally:
        stage.unlink(missing_ok=True)


def flush(descriptor: int) -> None:
    """What was written is on the disk."""
    os.fsync(descriptor)


def flush_folder(folder: Path) -> None:
    """The names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        flush(descriptor)
    finally:
        os.close(descriptor)


def facts_of(metadata: Any) -> PartFacts:
    """What a part's metadata says; ValueError or KeyError if it isn't one's."""
    return PartFacts(**json.loads((metadata or {})[KEY]))


def read_facts(path: Path) -> tuple[PartFacts, int]:
    """A part's facts and its number of rows, from the file's end alone.

    Raises:
        ValueError, KeyError, TypeError, OSError: damaged, or not a part.
    """
    found = pq.read_metadata(path)
    return facts_of(found.metadata), found.num_rows
