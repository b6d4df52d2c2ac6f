"""Rows of results as a torch Dataset."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from naflow_fx.dataset import MAP, Last
from naflow_fx.dataset.parts import maps_of


class TorchRows(Dataset[dict[str, Any]]):
    """Row number -> dictionary of numbers, texts and tensors.

    "label", "prediction", "target": -1 where unknown.  Measures: [layers].  "maps": layer ->
    [H, W] float16, each divided by its largest value, "max".
    """

    def __init__(
        self,
        read: Callable[..., Any],
        counts: Sequence[int],
        columns: Sequence[str],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> None:
        """How columns of a part are read, rows of each, what is read, and maps' shapes by layer."""
        self.maps = {MAP + layer: shape for layer, shape in shapes.items()}
        self.columns = (*columns, *self.maps)
        self.ends, self.read = list(itertools.accumulate(counts)), Last(read)

    def __len__(self) -> int:
        """Number of rows."""
        return self.ends[-1]

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One row."""
        index = range(len(self))[index]
        part = bisect.bisect_right(self.ends, index)
        at = index - (self.ends[part - 1] if part else 0)
        row = self.read(part, self.columns).slice(at, 1)
        maps = {
            name.removeprefix(MAP): torch.from_numpy(maps_of(row[name], shape)[0].copy())
            for name, shape in self.maps.items()
        }
        (found,) = row.drop_columns([*self.maps]).to_pylist()
        return {**{name: _known(value) for name, value in found.items()}, "maps": maps}


def _known(value: Any) -> Any:
    """A text as it is, numbers as a tensor."""
    return value if isinstance(value, str) else torch.tensor(-1 if value is None else value)
