"""Thousands of photos: explained once, whatever happens in between, and read with any library.

`explain_dataset` (run.py) is the place to start.  A run is cut into parts of fixed positions in
the source's order, and a part into fixed batches; a part is one Parquet file that appears whole or
not at all.  So which rows there are, and what is in them, does not depend on interruptions, on
the engine or on the number of workers.

    job.py        what is asked: source, explainer, sizes; its hash.  Positions of parts, batches
    spec.py       how a process makes the explainer for itself
    sources.py    folders, lists, ImageFolders, tar and Parquet: ids and bytes
    decode.py     bytes -> pixels, or the reason why not, in worker processes
    runner.py     batches through the explainer, parts through all: the local engine
    parts.py      rows <-> Parquet;  folder.py  the output folder
    cluster.py    decode, explain, write as Ray Data operators
    results.py    open_results: pandas, xarray, torch;  report.py  aggregates as a page
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from naflow_fx import errors
from naflow_fx.errors import DatasetError

MANIFEST, EXPLAINER, PARTS, FAILED = "manifest.json", "explainer.json", "parts", "failed.jsonl"
LOCK = ".lock"
STAGES = ".tmp-"  # how the names of what is being written begin
MAP = "map."  # before a layer's name: the column of its maps
# Of every map: how far its inverse can be trusted, its mean and largest value, the share of its
# positions above 0, and its entropy as a share of an even map's: 0 is one point, 1 evenly spread.
MEASURES = ("residual", "norm_ratio", "mean", "max", "active", "spread")


def is_results(path: str | Path) -> bool:
    """Whether a path is a folder that `explain_dataset` wrote."""
    return (Path(path) / MANIFEST).is_file() and (Path(path) / PARTS).is_dir()


T = TypeVar("T")


class Last(Generic[T]):
    """A function that keeps its last result; where it is sent, it has none yet."""

    def __init__(self, function: Callable[..., T]) -> None:
        self.function, self._kept = function, lru_cache(maxsize=1)(function)

    def __call__(self, *words: Any) -> T:
        """The result, computed unless the last call had the same arguments."""
        return self._kept(*words)

    def __reduce__(self) -> tuple[Any, ...]:
        """The function alone."""
        return Last, (self.function,)


def required(name: str, what: str, extra: str = "batch") -> Any:
    """A module of an extra; DatasetError with the line that installs it if it is missing."""
    return errors.required(name, extra=extra, what=what, error=DatasetError)
