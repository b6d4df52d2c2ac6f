"""Sources: photos in a fixed order, each with an id, perhaps a label, and its bytes.

Archives are read in place: nothing is ever unpacked to a file.
"""

from __future__ import annotations

import bisect
import glob
import os
import posixpath
import stat
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from naflow_fx.errors import DatasetError, one_of, unfit

ENDINGS = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".jp2",
    ".avif",
)  # fmt: skip
LARGEST = 1 << 29  # bytes of one file; a photo of more is not read
KNOWN = {".txt": "list", ".lst": "list", ".list": "list", ".tsv": "list", ".tar": "tar",
         ".parquet": "parquet"}  # fmt: skip
KINDS = ("folder", "imagefolder", "list", "tar", "parquet")


@dataclass(frozen=True)
class Source:
    """Photos by position; picklable, for worker processes read from it.

    Attributes:
        kind: one of `KINDS`.
        places: the folder that the photos lie below, or the archives.
        ids: the photos' names in the order of their positions; data, never used as paths.
        labels: the photos' classes, -1 where unknown; None if the source has none.
    """

    kind: str
    places: Sequence[str]
    ids: Sequence[str] = field(repr=False)
    labels: Sequence[int] | None = field(repr=False)

    @property
    def place(self) -> str:
        """Where it is, for people: the one place, or the first and how many more."""
        first, *more = self.places
        return f"{first} and {len(more)} more" if more else first

    def there(self) -> bool:
        """Whether the source as a whole can still be reached."""
        return all(map(os.path.exists, self.places))

    def read(self, position: int) -> bytes:
        """The photo's file; OSError if it can't be read."""
        raise NotImplementedError


def open_source(source: Any, kind: str | None = None) -> Source:
    """A source of photos.

    Args:
        source: a folder, a list file, tar archives or Parquet files (a path, or a pattern for
            several), an object with `samples` such as torchvision's ImageFolder, or a Source.
        kind: one of `KINDS`; None: from what is there.

    Raises:
        DatasetError: nothing there, no photo in it, or of a kind that isn't known.
    """
    if hasattr(source, "read") and hasattr(source, "ids"):
        found: Source = source
        return found
    if hasattr(source, "samples"):
        return _of_samples(source)
    path = os.fspath(source)
    kind = kind or _kind(path)
    opened = _open(path, kind)
    if not len(opened.ids):
        raise DatasetError(f"{path}: no photo in it ({kind}); wanted files that end in "
                           f"{', '.join(ENDINGS)}")  # fmt: skip
    return opened


def _open(path: str, kind: str) -> Source:
    if kind not in KINDS:
        raise unfit(DatasetError, "open_source", one_of(KINDS), kind=kind)
    if kind in ("folder", "imagefolder"):
        return _of_folder(path, kind)
    if kind == "list":
        return _of_list(path)
    several = sorted(glob.glob(path)) if glob.has_magic(path) else [path]
    return Tars.of(several) if kind == "tar" else Parquets.of(several)


def _kind(path: str) -> str:
    """What a path holds."""
    if os.path.isdir(path):
        return "imagefolder" if _holds_classes(path) else "folder"
    kind = KNOWN.get(os.path.splitext(path)[1].lower())
    if not (os.path.exists(path) or kind and glob.glob(path)):
        raise DatasetError(f"{path}: no such {'file' if kind else 'folder'}; check the path")
    if kind is None:
        raise DatasetError(f"{path}: not a source; wanted a folder, or a file that ends in "
                           f"{', '.join(KNOWN)} (an archive that is compressed as a whole must "
                           "be unpacked first)")  # fmt: skip
    return kind


def _holds_classes(path: str) -> bool:
    """Whether all photos lie in folders of classes: no photo at the top, folders there."""
    entries = list(os.scandir(path))
    top = any(is_photo(entry.name) for entry in entries if not entry.is_dir())
    return not top and any(entry.is_dir() for entry in entries)


def is_photo(name: str) -> bool:
    """Whether a file's name is a photo's; hidden files are none."""
    return name.lower().endswith(ENDINGS) and not name.startswith(".")


def _text(path: str) -> str:
    """A path as valid text with "/" between folders, whatever its bytes are."""
    return os.fsencode(path).decode("utf-8", "backslashreplace").replace(os.sep, "/")


def _known(labels: list[int]) -> list[int] | None:
    return labels if any(label >= 0 for label in labels) else None


@dataclass(frozen=True)
class Files(Source):
    """Photos that are files of their own: a folder, an ImageFolder, a list.

    Attributes:
        paths: as the file system names them, relative to the one place.
    """

    paths: Sequence[str] = field(repr=False)

    @classmethod
    def of(
        cls, kind: str, root: str, paths: Sequence[str], labels: Sequence[int] | None = None
    ) -> Files:
        """The files; their ids are their paths."""
        return cls(kind, [root], [_text(path) for path in paths], labels, paths)

    def read(self, position: int) -> bytes:
        """The file's bytes; OSError for what is no file, or larger than `LARGEST`."""
        path = Path(self.places[0], self.paths[position])
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise OSError("not a regular file")
        _check_size(found.st_size)
        return path.read_bytes()


def _check_size(size: int) -> None:
    if size > LARGEST:
        raise OSError(f"{size} bytes; more than {LARGEST} are not read")


def _of_folder(root: str, kind: str) -> Files:
    """Photos below a folder, sorted; of an ImageFolder with their folders' numbers."""
    if not os.path.isdir(root):
        raise DatasetError(f"{root}: no such folder; check the path")
    paths = sorted(_below(root), key=lambda path: path.split(os.sep))
    if kind == "folder":
        return Files.of(kind, root, paths)
    inner = [path.partition(os.sep)[0] if os.sep in path else "" for path in paths]
    number = {name: i for i, name in enumerate(sorted({*inner} - {""}))}
    return Files.of(kind, root, paths, [number.get(name, -1) for name in inner])


def _below(root: str) -> Iterator[str]:
    """Relative paths of photos; links to folders are followed, once each."""
    seen: set[tuple[int, int]] = set()
    for folder, inner, names in os.walk(root, followlinks=True):
        found = os.stat(folder)
        if (found.st_dev, found.st_ino) in seen:
            inner.clear()
            continue
        seen.add((found.st_dev, found.st_ino))
        inner.sort()
        for name in filter(is_photo, names):
            yield os.path.relpath(os.path.join(folder, name), root)


def _of_list(path: str) -> Files:
    """A text file: a path a line, relative to the file's folder; after a tab, its class."""
    text = Path(path).read_text("utf-8", errors="surrogateescape")
    rows = [line.split("\t") for line in text.split("\n") if line.strip()]
    try:
        labels = [int(row[1]) if len(row) > 1 else -1 for row in rows]
    except ValueError as error:
        raise DatasetError(f"{path}: {error}; wanted a number after the tab, the class") from error
    root = os.path.dirname(os.path.abspath(path))
    return Files.of("list", root, [row[0] for row in rows], _known(labels))


def _of_samples(dataset: Any) -> Files:
    """What torchvision's ImageFolder and its kind list as (path, class)."""
    root = os.fspath(getattr(dataset, "root", os.curdir))
    paths = [os.path.relpath(path, root) for path, _ in dataset.samples]
    return Files.of("imagefolder", root, paths, [int(label) for _, label in dataset.samples])


@dataclass(frozen=True)
class Tars(Source):
    """Photos in tar archives, WebDataset's too; every picture in them is a photo.

    The ids are the members' names, the labels from the `.cls` members.

    Attributes:
        where: of each photo the archive, the first byte, the number of bytes.
    """

    where: Sequence[tuple[str, int, int]] = field(repr=False)

    @classmethod
    def of(cls, files: Sequence[str]) -> Tars:
        """Reads the members' names and places; DatasetError for what is no plain tar."""
        places = [os.path.abspath(path) for path in files]
        where: list[tuple[str, int, int]] = []
        ids: list[str] = []
        labels: list[int] = []
        for path in places:
            photos, classes = _members(path)
            for photo in photos:
                where.append((path, photo.offset_data, photo.size))
                ids.append(_text(photo.name))
                labels.append(classes.get(_key(photo.name), -1))
        return cls("tar", places, ids, _known(labels), where)

    def read(self, position: int) -> bytes:
        """The member's bytes."""
        path, offset, size = self.where[position]
        _check_size(size)
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read(size)
        if len(data) < size:
            raise OSError(f"the archive ends {size - len(data)} bytes before the photo does")
        return data


def _members(path: str) -> tuple[list[tarfile.TarInfo], dict[str, int]]:
    """The photos of one archive, in its order, and its samples' classes."""
    photos: dict[str, tarfile.TarInfo] = {}
    classes: dict[str, int] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if not member.isreg() or member.issparse():
                    continue  # links lead elsewhere; folders and devices are no photos
                if is_photo(posixpath.basename(member.name)):
                    photos[member.name] = member
                elif member.name.endswith(".cls"):
                    taken = archive.extractfile(member)
                    classes[_key(member.name)] = _class(taken.read(32) if taken else b"")
    except (tarfile.TarError, EOFError) as error:
        raise DatasetError(f"{path}: not a tar archive that can be read ({error}); a compressed "
                           "one must be unpacked to .tar first") from error  # fmt: skip
    return list(photos.values()), classes


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
class Parquets(Source):
    """Photos in a column of Parquet files: bytes, or Hugging Face's {bytes, path}.

    The ids are the column `id`, `__key__`, `filename`, `path` or the struct's path, else row
    numbers; the labels the column `label` or `cls`.

    Attributes:
        column: of the photos.  Its values are read a row group at a time.
        groups: of each row group the first photo's position, the file and the group's number.
    """

    column: str
    groups: Sequence[tuple[int, str, int]] = field(repr=False)
    _last: dict[int, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, files: Sequence[str]) -> Parquets:
        """Reads names and labels; DatasetError for what is no Parquet, or has no photos."""
        places = [os.path.abspath(path) for path in files]
        groups: list[tuple[int, str, int]] = []
        ids: list[str] = []
        labels: list[int] = []
        column = ""
        for path in places:
            try:
                with pq.ParquetFile(path) as file:
                    column = _photos(path, file.schema_arrow)
                    start = len(ids)
                    for group in range(file.num_row_groups):
                        groups.append((start, path, group))
                        start += file.metadata.row_group(group).num_rows
                    ids += _ids(file, column, len(ids))
                    labels += _labels(file)
            except pa.ArrowInvalid as error:
                raise DatasetError(f"{path}: not a Parquet file ({error})") from error
        return cls("parquet", places, ids, _known(labels), column, groups)

    def read(self, position: int) -> bytes:
        """The row's bytes; OSError where it is null."""
        found = bisect.bisect_right(self.groups, position, key=lambda group: group[0]) - 1
        start, path, group = self.groups[found]
        if found not in self._last:  # one row group is kept: positions are read in order
            with pq.ParquetFile(path) as file:
                table = file.read_row_group(group, columns=[self.column])
            self._last.clear()
            self._last[found] = table[self.column]
        value = self._last[found][position - start].as_py()
        data = value["bytes"] if isinstance(value, dict) else value
        if data is None:
            raise OSError("no bytes in this row")
        return bytes(data)

    def __getstate__(self) -> dict[str, Any]:
        """Without the row group that was read last."""
        return {**self.__dict__, "_last": {}}


def _photos(path: str, schema: pa.Schema) -> str:
    """The column that holds the photos."""
    for item in schema:
        kind = item.type
        bare = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
        if bare or (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0):
            return str(item.name)
    raise DatasetError(f"{path}: no column of photos; wanted one of bytes, or of "
                       f"{{bytes, path}}; got {', '.join(schema.names)}")  # fmt: skip


def _ids(file: pq.ParquetFile, photos: str, start: int) -> list[str]:
    """The photos' names in one file; `start`: of its first row without one."""
    kind = file.schema_arrow.field(photos).type
    names = [n for n in ("id", "__key__", "filename", "path") if n in file.schema_arrow.names]
    found: list[Any] = [None] * file.metadata.num_rows
    if names:
        found = file.read(columns=names[:1])[0].to_pylist()
    elif pa.types.is_struct(kind) and kind.get_field_index("path") >= 0:
        found = pc.struct_field(file.read(columns=[f"{photos}.path"])[0], "path").to_pylist()
    return [str(start + i) if name is None else str(name) for i, name in enumerate(found)]


def _labels(file: pq.ParquetFile) -> list[int]:
    """The photos' classes in one file, -1 where unknown."""
    schema = file.schema_arrow
    for name in ("label", "cls"):
        if name in schema.names and pa.types.is_integer(schema.field(name).type):
            classes = file.read(columns=[name])[0]
            return [-1 if label is None else label for label in classes.to_pylist()]
    return [-1] * file.metadata.num_rows
