"""Rows of results as a torch Dataset."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from naflow_fx.dataset import MAP, Last
from naflow_fx.dataset.parts import maps_of, read_rows


class TorchRows(Dataset[dict[str, Any]]):
    """Row number -> dictionary of numbers, texts and tensors.

    "label", "prediction", "target": -1 where unknown.  Measures: [layers].  "maps": layer ->
    [H, W] float16, each divided by its largest value, "max".
    """

    def __init__(
        self,
        files: Sequence[Path],
        counts: Sequence[int],
        columns: Sequence[str],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> None:
        """The parts and their numbers of rows; what is read; the shapes of the maps among it."""
        self.files, self.columns, self.shapes = files, tuple(columns), shapes
        self.ends, self.read = list(itertools.accumulate(counts)), Last(read_rows)

    def __len__(self) -> int:
        """Number of rows."""
        return self.ends[-1]

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One row."""
        index = range(len(self))[index]
        part = bisect.bisect_right(self.ends, index)
        at = index - (self.ends[part - 1] if part else 0)
        row = self.read(self.files[part], self.columns).slice(at, 1)
        maps = {
            layer: torch.from_numpy(maps_of(row[MAP + layer], shape)[0].copy())
            for layer, shape in self.shapes.items()
        }
        (found,) = row.drop_columns([MAP + layer for layer in maps]).to_pylist()
        return {**{name: _known(value) for name, value in found.items()}, "maps": maps}


def _known(value: Any) -> Any:
    """A text as it is, numbers as a tensor."""
    return value if isinstance(value, str) else torch.tensor(-1 if value is None else value)
