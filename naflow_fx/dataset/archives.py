"""Photos in tar archives and Parquet files, read in place: nothing is ever unpacked to a file."""

from __future__ import annotations

import bisect
import os
import posixpath
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from naflow_fx.dataset import required
from naflow_fx.dataset.files import LARGEST, is_photo, text
from naflow_fx.errors import DatasetError


@dataclass(frozen=True)
class Tars:
    """Photos in tar archives, WebDataset's too; every picture in them is a photo.

    Attributes:
        files: the archives.
        where: of each photo the archive's number, the first byte, the number of bytes.
        ids: the members' names.
        labels: from the `.cls` members; None if there is none.
    """

    files: Sequence[str]
    where: Sequence[tuple[int, int, int]] = field(repr=False)
    ids: Sequence[str] = field(repr=False)
    labels: Sequence[int] | None = field(repr=False)
    kind: str = "tar"

    @classmethod
    def of(cls, files: Sequence[str]) -> Tars:
        """Reads the members' names and places; DatasetError for what is no plain tar."""
        where: list[tuple[int, int, int]] = []
        ids: list[str] = []
        labels: list[int] = []
        for number, path in enumerate(files):
            for name, (offset, size), label in _members(path):
                where.append((number, offset, size))
                ids.append(name)
                labels.append(label)
        known = labels if any(label >= 0 for label in labels) else None
        return cls([os.path.abspath(path) for path in files], where, ids, known)

    @property
    def place(self) -> str:
        """The archives."""
        return _several(self.files)

    def read(self, position: int) -> bytes:
        """The member's bytes."""
        number, offset, size = self.where[position]
        if size > LARGEST:
            raise OSError(f"{size} bytes; more than {LARGEST} are not read")
        with open(self.files[number], "rb") as file:
            file.seek(offset)
            data = file.read(size)
        if len(data) < size:
            raise OSError(f"the archive ends {size - len(data)} bytes before the photo does")
        return data

    def there(self) -> bool:
        """Whether the archives exist."""
        return all(map(os.path.isfile, self.files))


def _members(path: str) -> list[tuple[str, tuple[int, int], int]]:
    """(id, (offset, size), label) of the photos of one archive, in its order."""
    photos: dict[str, tuple[int, int]] = {}
    classes: dict[str, int] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if not member.isreg() or member.issparse():
                    continue  # links lead elsewhere; folders and devices are no photos
                if is_photo(posixpath.basename(member.name)):
                    photos[member.name] = (member.offset_data, member.size)
                elif member.name.endswith(".cls"):
                    taken = archive.extractfile(member)
                    classes[_key(member.name)] = _class(taken.read(32) if taken else b"")
    except (tarfile.TarError, EOFError) as error:
        raise DatasetError(f"{path}: not a tar archive that can be read ({error}); a compressed "
                           "one must be unpacked to .tar first") from error  # fmt: skip
    return [(text(n), place, classes.get(_key(n), -1)) for n, place in photos.items()]


def _key(name: str) -> str:
    """What the members of one sample share, WebDataset's way: all up to the file's first dot."""
    folder, _, file = name.rpartition("/")
    return f"{folder}/{file.partition('.')[0]}"


def _class(data: bytes) -> int:
    try:
        return int(data)
    except ValueError:
        return -1


@dataclass(frozen=True)
class Parquets:
    """Photos in a column of Parquet files: bytes, or Hugging Face's {bytes, path}.

    Attributes:
        files: the files.
        column: of the photos.  Its values are read a row group at a time.
        groups: of each row group the first photo's position, the file's and the group's number.
        ids: the column `id`, `__key__`, `filename`, `path` or the struct's path, else row numbers.
        labels: the column `label` or `cls`; None if there is none.
    """

    files: Sequence[str]
    column: str
    groups: Sequence[tuple[int, int, int]] = field(repr=False)
    ids: Sequence[str] = field(repr=False)
    labels: Sequence[int] | None = field(repr=False)
    kind: str = "parquet"
    _last: dict[int, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, files: Sequence[str]) -> Parquets:
        """Reads names and labels; DatasetError for what is no Parquet, or has no photos."""
        pq = required("pyarrow.parquet", "a Parquet source")
        arrow = required("pyarrow", "a Parquet source")
        groups: list[tuple[int, int, int]] = []
        ids: list[str] = []
        labels: list[int] = []
        column = ""
        for number, path in enumerate(files):
            try:
                with pq.ParquetFile(path) as file:
                    column = _photos(path, file.schema_arrow)
                    start = len(ids)
                    for group in range(file.num_row_groups):
                        groups.append((start, number, group))
                        start += file.metadata.row_group(group).num_rows
                    names, classes = _columns(file, column, len(ids))
            except arrow.ArrowInvalid as error:
                raise DatasetError(f"{path}: not a Parquet file ({error})") from error
            ids += names
            labels += classes
        known = labels if any(label >= 0 for label in labels) else None
        return cls([os.path.abspath(path) for path in files], column, groups, ids, known)

    @property
    def place(self) -> str:
        """The files."""
        return _several(self.files)

    def read(self, position: int) -> bytes:
        """The row's bytes; OSError where it is null."""
        found = bisect.bisect_right(self.groups, position, key=lambda group: group[0]) - 1
        start, number, group = self.groups[found]
        if found not in self._last:  # one row group is kept: positions are read in order
            pq = required("pyarrow.parquet", "a Parquet source")
            with pq.ParquetFile(self.files[number]) as file:
                table = file.read_row_group(group, columns=[self.column])
            self._last.clear()
            self._last[found] = table[self.column]
        value = self._last[found][position - start].as_py()
        data = value["bytes"] if isinstance(value, dict) else value
        if data is None:
            raise OSError("no bytes in this row")
        return bytes(data)

    def there(self) -> bool:
        """Whether the files exist."""
        return all(map(os.path.isfile, self.files))

    def __getstate__(self) -> dict[str, Any]:
        """Without the row group that was read last."""
        return {**self.__dict__, "_last": {}}


def _photos(path: str, schema: Any) -> str:
    """The column that holds the photos."""
    types = required("pyarrow", "a Parquet source").types
    for item in schema:
        kind = item.type
        bare = types.is_binary(kind) or types.is_large_binary(kind)
        if bare or (types.is_struct(kind) and kind.get_field_index("bytes") >= 0):
            return str(item.name)
    raise DatasetError(f"{path}: no column of photos; wanted one of bytes, or of "
                       f"{{bytes, path}}; got {', '.join(schema.names)}")  # fmt: skip


def _columns(file: Any, photos: str, start: int) -> tuple[list[str], list[int]]:
    """The ids and labels of one file."""
    schema, rows = file.schema_arrow, file.metadata.num_rows
    types = required("pyarrow", "a Parquet source").types
    names = [name for name in ("id", "__key__", "filename", "path") if name in schema.names]
    labels = [n for n in ("label", "cls") if n in schema.names
              and types.is_integer(schema.field(n).type)]  # fmt: skip
    inner = types.is_struct(schema.field(photos).type)
    inner = inner and schema.field(photos).type.get_field_index("path") >= 0
    wanted = names[:1] or ([f"{photos}.path"] if inner else [])
    table = file.read(columns=[*wanted, *labels[:1]])
    ids = [None] * rows
    if names:
        ids = table[names[0]].to_pylist()
    elif wanted:
        ids = [value and value.get("path") for value in table[photos].to_pylist()]
    classes = table[labels[0]].to_pylist() if labels else [None] * rows
    shown = [str(start + i) if name is None else str(name) for i, name in enumerate(ids)]
    return shown, [-1 if label is None else int(label) for label in classes]


def _several(files: Sequence[str]) -> str:
    """One file's name, or the first's and how many more."""
    return files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
