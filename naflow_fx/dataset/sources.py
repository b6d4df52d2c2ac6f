"""Sources: photos in a fixed order, each with an id, perhaps a label, and its bytes."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from naflow_fx.errors import DatasetError

ENDINGS = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".jp2",
    ".avif",
)  # fmt: skip
LISTS, TARS, PARQUETS = (".txt", ".lst", ".list", ".tsv"), (".tar",), (".parquet",)
KINDS = ("folder", "imagefolder", "list", "tar", "parquet")
LARGEST = 1 << 29  # bytes of one file; a photo of more is not read


class Source(Protocol):
    """Photos by position; picklable, for worker processes read from it."""

    @property
    def kind(self) -> str:
        """One of `KINDS`."""

    @property
    def place(self) -> str:
        """Where it is, for people."""

    @property
    def ids(self) -> Sequence[str]:
        """The photos' names in the order of their positions; data, never used as paths."""

    @property
    def labels(self) -> Sequence[int] | None:
        """The photos' classes, -1 where unknown; None if the source has none."""

    def read(self, position: int) -> bytes:
        """The photo's file; OSError if it can't be read."""

    def there(self) -> bool:
        """Whether the source as a whole can still be reached."""


@dataclass(frozen=True)
class Files:
    """Photos that are files of their own.

    Attributes:
        root: they lie below it, or are named relative to it.
        paths: as the file system names them.
        ids: the same as valid text, "/" between folders.
        labels: numbers of their folders, or of the second column of a list.
        kind: "folder", "imagefolder" or "list".
    """

    root: str
    paths: Sequence[str] = field(repr=False)
    ids: Sequence[str] = field(repr=False)
    labels: Sequence[int] | None = field(repr=False)
    kind: str = "folder"

    @property
    def place(self) -> str:
        """The folder."""
        return self.root

    def read(self, position: int) -> bytes:
        """The file's bytes; OSError for what is no file, or larger than `LARGEST`."""
        path = os.path.join(self.root, self.paths[position])
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise OSError("not a regular file")
        if found.st_size > LARGEST:
            raise OSError(f"{found.st_size} bytes; more than {LARGEST} are not read")
        return Path(path).read_bytes()

    def there(self) -> bool:
        """Whether the folder exists."""
        return os.path.isdir(self.root)


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
        return _samples(source)
    path, kind = os.fspath(source), kind or _kind(os.fspath(source))
    opened = _open(path, kind)
    if not len(opened.ids):
        raise DatasetError(f"{path}: no photo in it ({kind}); wanted files that end in "
                           f"{', '.join(ENDINGS)}")  # fmt: skip
    return opened


def _open(path: str, kind: str) -> Source:
    if kind in ("folder", "imagefolder"):
        return _folder(path, kind)
    if kind == "list":
        return _list(path)
    if kind not in KINDS:
        raise DatasetError(f"kind={kind!r}: wanted one of {', '.join(KINDS)}")
    from naflow_fx.dataset import archives

    several = sorted(glob.glob(path)) if glob.has_magic(path) else [path]
    return archives.Tars.of(several) if kind == "tar" else archives.Parquets.of(several)


def _kind(path: str) -> str:
    """What a path holds."""
    if os.path.isdir(path):
        return "imagefolder" if _of_classes(path) else "folder"
    ending = os.path.splitext(path)[1].lower()
    for kind, endings in (("list", LISTS), ("tar", TARS), ("parquet", PARQUETS)):
        if ending in endings:
            if not (os.path.isfile(path) or glob.glob(path)):
                raise DatasetError(f"no source at {path}; check the path")
            return kind
    if not os.path.exists(path):
        raise DatasetError(f"no source at {path}; check the path")
    raise DatasetError(f"{path}: not a source; wanted a folder, or a file that ends in "
                       f"{', '.join((*LISTS, *TARS, *PARQUETS))} (an archive that is compressed "
                       "as a whole must be unpacked first)")  # fmt: skip


def _of_classes(path: str) -> bool:
    """Whether all photos lie in folders of classes: no photo at the top, folders there."""
    entries = list(os.scandir(path))
    top = any(is_photo(entry.name) for entry in entries if not entry.is_dir())
    return not top and any(entry.is_dir() for entry in entries)


def is_photo(name: str) -> bool:
    """Whether a file's name is a photo's; hidden files are none."""
    return name.lower().endswith(ENDINGS) and not name.startswith(".")


def _folder(root: str, kind: str) -> Files:
    """Photos below a folder, sorted; of an ImageFolder with their folders' numbers."""
    if not os.path.isdir(root):
        raise DatasetError(f"{root}: not a folder")
    paths = sorted(_below(root), key=lambda path: path.split(os.sep))
    labels = None
    if kind == "imagefolder":
        inner = [path.split(os.sep)[0] if os.sep in path else None for path in paths]
        number = {name: i for i, name in enumerate(sorted({n for n in inner if n is not None}))}
        labels = [-1 if name is None else number[name] for name in inner]
    return Files(root, paths, [text(path) for path in paths], labels, kind)


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
        for name in names:
            if is_photo(name):
                yield os.path.relpath(os.path.join(folder, name), root)


def _list(path: str) -> Files:
    """A text file: a path a line, relative to the file's folder; after a tab, its class."""
    root = os.path.dirname(os.path.abspath(path))
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        lines = [line.rstrip("\r\n") for line in file]
    rows = [line.split("\t") for line in lines if line.strip()]
    try:
        labels = [int(row[1]) if len(row) > 1 else -1 for row in rows]
    except ValueError as error:
        raise DatasetError(f"{path}: {error}; wanted a number after the tab, the class") from error
    paths = [row[0] for row in rows]
    known = labels if any(label >= 0 for label in labels) else None
    return Files(root, paths, [text(p) for p in paths], known, "list")


def _samples(dataset: Any) -> Files:
    """What torchvision's ImageFolder and its kind list as (path, class)."""
    root = os.fspath(getattr(dataset, "root", os.curdir))
    paths = [os.path.relpath(path, root) for path, _ in dataset.samples]
    labels = [int(label) for _, label in dataset.samples]
    return Files(root, paths, [text(path) for path in paths], labels, "imagefolder")


def text(path: str) -> str:
    """A path as valid text with "/" between folders, whatever its bytes are."""
    return os.fsencode(path).decode("utf-8", "backslashreplace").replace(os.sep, "/")
