"""Photos that are files: a folder, an ImageFolder, a list."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from naflow_fx.errors import DatasetError

ENDINGS = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".jp2",
    ".avif",
)  # fmt: skip
LARGEST = 1 << 29  # bytes of one file; a photo of more is not read


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


def of_classes(path: str) -> bool:
    """Whether all photos lie in folders of classes: no photo at the top, folders there."""
    entries = list(os.scandir(path))
    top = any(is_photo(entry.name) for entry in entries if not entry.is_dir())
    return not top and any(entry.is_dir() for entry in entries)


def is_photo(name: str) -> bool:
    """Whether a file's name is a photo's; hidden files are none."""
    return name.lower().endswith(ENDINGS) and not name.startswith(".")


def folder_of(root: str, kind: str) -> Files:
    """Photos below a folder, sorted; of an ImageFolder with their folders' numbers."""
    if not os.path.isdir(root):
        raise DatasetError(f"{root}: no such folder; check the path")
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


def list_of(path: str) -> Files:
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


def samples_of(dataset: Any) -> Files:
    """What torchvision's ImageFolder and its kind list as (path, class)."""
    root = os.fspath(getattr(dataset, "root", os.curdir))
    paths = [os.path.relpath(path, root) for path, _ in dataset.samples]
    labels = [int(label) for _, label in dataset.samples]
    return Files(root, paths, [text(path) for path in paths], labels, "imagefolder")


def text(path: str) -> str:
    """A path as valid text with "/" between folders, whatever its bytes are."""
    return os.fsencode(path).decode("utf-8", "backslashreplace").replace(os.sep, "/")
