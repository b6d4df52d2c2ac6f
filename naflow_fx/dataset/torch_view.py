"""Rows of results as a torch Dataset."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from naflow_fx.dataset import MAP


class TorchRows(Dataset[dict[str, Any]]):
    """Row number -> dictionary of numbers, texts and tensors.

    "label", "prediction", "target": -1 where unknown.  Measures: [layers].  "maps": layer ->
    [H, W] float16, each divided by its largest value, "max".
    """

    def __init__(
        self,
        read: Callable[[int], Any],
        shapes: Mapping[str, tuple[int, ...]],
        counts: Sequence[int],
    ) -> None:
        """A part's table, picklable; the shapes of the maps wanted; the parts' numbers of rows."""
        self.read, self.shapes = read, shapes
        self.ends = list(itertools.accumulate(counts))
        self._part: tuple[int, Any] = (-1, None)

    def __len__(self) -> int:
        """Number of rows."""
        return self.ends[-1]

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One row."""
        from naflow_fx.dataset.parts import maps_of

        index = range(len(self))[index]
        part = bisect.bisect_right(self.ends, index)
        row = self._table(part).slice(index - (self.ends[part - 1] if part else 0), 1)
        maps = {
            layer: torch.from_numpy(maps_of(row[MAP + layer], shape)[0].copy())
            for layer, shape in self.shapes.items()
        }
        (found,) = row.drop_columns([MAP + layer for layer in maps]).to_pylist()
        return {**{name: _known(value) for name, value in found.items()}, "maps": maps}

    def _table(self, part: int) -> Any:
        """The part's rows, the last one read kept."""
        if self._part[0] != part:
            self._part = (part, self.read(part))
        return self._part[1]

    def __getstate__(self) -> dict[str, Any]:
        """Without the part that was read last."""
        return {**self.__dict__, "_part": (-1, None)}


def _known(value: Any) -> Any:
    """A text as it is, numbers as a tensor."""
    return value if isinstance(value, str) else torch.tensor(-1 if value is None else value)
