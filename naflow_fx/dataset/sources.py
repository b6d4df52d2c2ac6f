"""Sources: photos in a fixed order, each with an id, perhaps a label, and its bytes."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from typing import Any, Protocol

from naflow_fx.dataset import archives, files
from naflow_fx.dataset.files import ENDINGS
from naflow_fx.errors import DatasetError, one_of, unfit

LISTS, TARS, PARQUETS = (".txt", ".lst", ".list", ".tsv"), (".tar",), (".parquet",)
KINDS = ("folder", "imagefolder", "list", "tar", "parquet")


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
        return files.samples_of(source)
    path, kind = os.fspath(source), kind or _kind(os.fspath(source))
    opened = _open(path, kind)
    if not len(opened.ids):
        raise DatasetError(f"{path}: no photo in it ({kind}); wanted files that end in "
                           f"{', '.join(ENDINGS)}")  # fmt: skip
    return opened


def _open(path: str, kind: str) -> Source:
    if kind in ("folder", "imagefolder"):
        return files.folder_of(path, kind)
    if kind == "list":
        return files.list_of(path)
    if kind not in KINDS:
        raise unfit(DatasetError, "open_source", one_of(KINDS), kind=kind)
    several = sorted(glob.glob(path)) if glob.has_magic(path) else [path]
    return archives.Tars.of(several) if kind == "tar" else archives.Parquets.of(several)


def _kind(path: str) -> str:
    """What a path holds."""
    if os.path.isdir(path):
        return "imagefolder" if files.of_classes(path) else "folder"
    ending = os.path.splitext(path)[1].lower()
    for kind, endings in (("list", LISTS), ("tar", TARS), ("parquet", PARQUETS)):
        if ending in endings:
            if not (os.path.isfile(path) or glob.glob(path)):
                raise DatasetError(f"{path}: no such file; check the path")
            return kind
    if not os.path.exists(path):
        raise DatasetError(f"{path}: no such folder; check the path")
    raise DatasetError(f"{path}: not a source; wanted a folder, or a file that ends in "
                       f"{', '.join((*LISTS, *TARS, *PARQUETS))} (an archive that is compressed "
                       "as a whole must be unpacked first)")  # fmt: skip
