"""Sources: photos in a fixed order, each with an id, perhaps a label, and its bytes.

Archives are read in place: nothing is ever unpacked to a file.
"""

from __future__ import annotations

import glob
import os
import posixpath
import stat
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from naflow_fx.dataset import Last
from naflow_fx.errors import DatasetError, check_choice, unfit

ENDINGS = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".jp2",
    ".avif",
)  # fmt: skip
Row = tuple[str | None, int, Any]  # a photo's id, its class, -1 where unknown, where it lies
LARGEST = 1 << 29  # bytes of one file; a photo of more is not read
KNOWN = {".txt": "list", ".lst": "list", ".list": "list", ".tsv": "list", ".tar": "tar",
         ".parquet": "parquet"}  # fmt: skip


@dataclass(frozen=True)
class Source:
    """Photos by position; picklable, for worker processes read from it.

    Attributes:
        kind: one of `OPENERS`.
        places: the folder that the photos lie below, the list, or the archives.
        ids: the photos' names in the order of their positions; data, never used as paths.
        labels: the photos' classes, -1 where unknown; None if the source has none.
        where: what the reader asks for, of each photo.
        reader: where -> the bytes of the photo's file; OSError if they can't be read.
    """

    kind: str
    places: Sequence[str]
    ids: Sequence[str] = field(repr=False)
    labels: Sequence[int] | None = field(repr=False)
    where: Sequence[Any] = field(repr=False)
    reader: Callable[[Any], bytes] = field(repr=False)

    @property
    def place(self) -> str:
        """Where it is, for people: the one place, or the first and how many more."""
        first, *more = self.places
        return f"{first} and {len(more)} more" if more else first

    def there(self) -> bool:
        """Whether the source as a whole can still be reached."""
        return all(map(os.path.exists, self.places))

    def read(self, position: int) -> bytes:
        """The photo's file; OSError if it can't be read, or is larger than `LARGEST`."""
        return self.reader(self.where[position])


def open_source(source: Any, kind: str | None = None) -> Source:
    """A source of photos.

    Args:
        source: a folder, a list file, tar archives or Parquet files (a path, or a pattern for
            several), an object with `samples` such as torchvision's ImageFolder, or a Source.
        kind: one of `OPENERS`; None: from what is there.

    Raises:
        DatasetError: nothing there, no photo in it, or of a kind that isn't known.
    """
    if isinstance(source, Source):
        return source
    if hasattr(source, "samples"):
        return _of_samples(source)
    if not isinstance(source, (str, os.PathLike)):
        wanted = "a path, a pattern of several, or a dataset with `samples`"
        raise unfit(DatasetError, "open_source", wanted, source=source)
    path = os.fspath(source)
    kind = kind or _kind(path)
    check_choice(DatasetError, "open_source", OPENERS, kind=kind)
    opened = OPENERS[kind](path)
    if not len(opened.ids):
        raise DatasetError(f"{path}: no photo in it ({kind}); wanted files that end in "
                           f"{', '.join(ENDINGS)}")  # fmt: skip
    return opened


def _kind(path: str) -> str:
    """What a path holds; folders without a photo beside them are taken for classes."""
    if os.path.isdir(path):
        _, folders, files = next(os.walk(path))
        return "imagefolder" if folders and not any(map(is_photo, files)) else "folder"
    kind = KNOWN.get(os.path.splitext(path)[1].lower())
    if not (os.path.exists(path) or kind and glob.glob(path)):
        raise DatasetError(f"{path}: no such {'file' if kind else 'folder'}; check the path")
    if kind is None:
        raise DatasetError(f"{path}: not a source; wanted a folder, or a file that ends in "
                           f"{', '.join(KNOWN)} (an archive that is compressed as a whole must "
                           "be unpacked first)")  # fmt: skip
    return kind


def is_photo(name: str) -> bool:
    """Whether a file's name is a photo's; hidden files are none."""
    return name.lower().endswith(ENDINGS) and not name.startswith(".")


def _text(path: str) -> str:
    """A path as valid text with "/" between folders, whatever its bytes are."""
    return os.fsencode(path).decode("utf-8", "backslashreplace").replace(os.sep, "/")


def _known(labels: list[int]) -> list[int] | None:
    return labels if any(label >= 0 for label in labels) else None


def _check_size(size: int) -> None:
    if size > LARGEST:
        raise OSError(f"{size} bytes; more than {LARGEST} are not read")


def _files(
    kind: str, root: str, paths: Sequence[str], labels: Sequence[int] | None = None
) -> Source:
    """Photos that are files of their own; their ids are their paths below `root`."""
    ids = [_text(path) for path in paths]
    return Source(kind, [root], ids, labels, paths, partial(_read_file, root))


def _read_file(root: str, path: str) -> bytes:
    place = Path(root, path)
    found = place.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError("not a regular file")
    _check_size(found.st_size)
    return place.read_bytes()


def _of_folder(root: str) -> Source:
    """Photos below a folder, sorted."""
    if not os.path.isdir(root):
        raise DatasetError(f"{root}: no such folder; check the path")
    return _files("folder", root, sorted(_below(root), key=lambda path: path.split(os.sep)))


def _of_classes(root: str) -> Source:
    """An ImageFolder: the same, with the numbers of the folders at the top."""
    paths = _of_folder(root).where
    inner = [os.path.dirname(path).partition(os.sep)[0] for path in paths]
    number = {name: i for i, name in enumerate(sorted({*inner} - {""}))}
    return _files("imagefolder", root, paths, [number.get(name, -1) for name in inner])


def _below(root: str) -> Iterator[str]:
    """Relative paths of photos; links to folders are followed, once each."""
    seen: set[str] = set()
    for folder, inner, names in os.walk(root, followlinks=True):
        place = os.path.realpath(folder)
        if place in seen:
            inner.clear()
            continue
        seen.add(place)
        inner.sort()
        for name in filter(is_photo, names):
            yield os.path.relpath(os.path.join(folder, name), root)


def _of_list(path: str) -> Source:
    """A text file: a path a line, relative to the file's folder; after a tab, its class."""
    text = Path(path).read_text("utf-8", errors="surrogateescape")
    rows = [line.split("\t") for line in text.split("\n") if line.strip()]
    try:
        labels = [int(row[1]) if len(row) > 1 else -1 for row in rows]
    except ValueError as error:
        raise DatasetError(f"{path}: {error}; wanted a number after the tab, the class") from error
    root = os.path.dirname(os.path.abspath(path))
    found = _files("list", root, [row[0] for row in rows], _known(labels))
    return replace(found, places=[os.path.abspath(path)])  # where it can be opened again


def _of_samples(dataset: Any) -> Source:
    """What torchvision's ImageFolder and its kind list as (path, class)."""
    root = os.fspath(getattr(dataset, "root", os.curdir))
    paths = [os.path.relpath(path, root) for path, _ in dataset.samples]
    return _files("imagefolder", root, paths, [int(label) for _, label in dataset.samples])


def _of_archives(
    kind: str, pattern: str, photos: Callable[[str], Iterator[Row]], reader: Callable[[Any], bytes]
) -> Source:
    """The archives that a path or a pattern means; those without a name are called by number."""
    found = sorted(glob.glob(pattern)) if glob.has_magic(pattern) else [pattern]
    places = [os.path.abspath(path) for path in found]
    rows = [row for path in places for row in photos(path)]
    ids = [str(i) if name is None else str(name) for i, (name, _, _) in enumerate(rows)]
    labels, where = [label for _, label, _ in rows], [where for _, _, where in rows]
    return Source(kind, places, ids, _known(labels), where, reader)


def _in_tar(path: str) -> Iterator[Row]:
    """Photos of a tar archive, WebDataset's too: every picture in it, with its `.cls` member.

    The ids are the members' names.
    """
    photos, classes = _members(path)
    for name, photo in photos.items():
        yield _text(name), classes.get(_key(name), -1), (path, photo.offset_data, photo.size)


def _read_member(where: tuple[str, int, int]) -> bytes:
    """So many bytes of a file, from a first one on."""
    path, offset, size = where
    _check_size(size)
    with open(path, "rb") as file:
        file.seek(offset)
        data = file.read(size)
    if len(data) < size:
        raise OSError(f"the archive ends {size - len(data)} bytes before the photo does")
    return data


def _members(path: str) -> tuple[dict[str, tarfile.TarInfo], dict[str, int]]:
    """The photos of one archive by name, in its order, and its samples' classes."""
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
                    text = cast(IO[bytes], archive.extractfile(member)).read(32).strip()
                    classes[_key(member.name)] = int(text) if text.isdigit() else -1
    except (tarfile.TarError, EOFError) as error:
        raise DatasetError(f"{path}: not a tar archive that can be read ({error}); a compressed "
                           "one must be unpacked to .tar first") from error  # fmt: skip
    return photos, classes


def _key(name: str) -> str:
    """What the members of one sample share, WebDataset's way: all up to the file's first dot."""
    folder, _, file = name.rpartition("/")
    return f"{folder}/{file.partition('.')[0]}"


def _in_parquet(path: str) -> Iterator[Row]:
    """Photos in a column of a Parquet file: bytes, or Hugging Face's {bytes, path}.

    The ids are the column `id`, `__key__`, `filename`, `path` or the struct's path, None without
    one; the labels the column `label` or `cls`.
    """
    try:
        with pq.ParquetFile(path) as file:
            column = _photos(path, file.schema_arrow)
            where = (
                (path, column, group, row)
                for group in range(file.num_row_groups)
                for row in range(file.metadata.row_group(group).num_rows)
            )
            yield from zip(_ids(file, column), _labels(file), where, strict=True)
    except pa.ArrowInvalid as error:
        raise DatasetError(f"{path}: not a Parquet file ({error})") from error


def _read_row(read: Last[pa.ChunkedArray], where: tuple[str, str, int, int]) -> bytes:
    """The bytes in a row of a file's row group, which is kept: positions are read in order."""
    *group, row = where
    value = read(*group)[row].as_py()
    data = value["bytes"] if isinstance(value, dict) else value
    if data is None:
        raise OSError("no bytes in this row")
    return bytes(data)


def _row_group(path: str, column: str, group: int) -> pa.ChunkedArray:
    with pq.ParquetFile(path) as file:
        return file.read_row_group(group, columns=[column])[column]


def _photos(path: str, schema: pa.Schema) -> str:
    """The column that holds the photos."""
    for item in schema:
        kind = item.type
        bare = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
        if bare or (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0):
            return str(item.name)
    raise DatasetError(f"{path}: no column of photos; wanted one of bytes, or of "
                       f"{{bytes, path}}; got {', '.join(schema.names)}")  # fmt: skip


def _ids(file: pq.ParquetFile, photos: str) -> list[Any]:
    """The photos' names in one file, None for those without one."""
    schema = file.schema_arrow
    names = [n for n in ("id", "__key__", "filename", "path") if n in schema.names]
    kind = schema.field(photos).type
    if pa.types.is_struct(kind) and kind.get_field_index("path") >= 0:
        names.append(f"{photos}.path")
    if not names:
        return [None] * file.metadata.num_rows
    found: list[Any] = file.read(columns=names[:1]).flatten()[0].to_pylist()
    return found


def _labels(file: pq.ParquetFile) -> list[int]:
    """The photos' classes in one file, -1 where unknown."""
    schema = file.schema_arrow
    for name in ("label", "cls"):
        if name in schema.names and pa.types.is_integer(schema.field(name).type):
            classes = file.read(columns=[name])[0].cast(pa.int64()).fill_null(-1)
            return list(classes.to_pylist())
    return [-1] * file.metadata.num_rows


OPENERS: dict[str, Callable[[str], Source]] = {
    "folder": _of_folder,
    "imagefolder": _of_classes,
    "list": _of_list,
    "tar": lambda place: _of_archives("tar", place, _in_tar, _read_member),
    "parquet": lambda place: _of_archives(
        "parquet", place, _in_parquet, partial(_read_row, Last(_row_group))
    ),
}
