"""Roll and flip: y = x with its entries moved along dimensions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from naflow_fx.rules._rearrangement import rearrangement
from naflow_fx.rules._spellings import spellings
from naflow_fx.rules.contract import Arguments

Ints = tuple[int, ...]


def forward(input: Tensor, shifts: Ints, dims: Ints) -> Tensor:
    """torch.roll."""
    return torch.roll(input, shifts, dims)


def back(w: Tensor, shifts: Ints, dims: Ints) -> Tensor:
    """w rolled back."""
    return torch.roll(w, tuple(-s for s in shifts), dims)


def flip(input: Tensor, dims: Ints) -> Tensor:
    """torch.flip, which undoes itself."""
    return torch.flip(input, dims)


def adapt(input: Any, shifts: Any, dims: Any = None) -> Arguments:
    """roll's arguments."""
    shifts = (shifts,) if isinstance(shifts, int) else tuple(shifts)
    dims = (dims,) if isinstance(dims, int) else tuple(dims or ())
    return {"input": input, "shifts": shifts, "dims": _without_batch(dims)}


def adapt_flip(input: Any, *dims: Any) -> Arguments:
    """flip's arguments."""
    found = dims if isinstance(dims[0], int) else tuple(dims[0])
    return {"input": input, "dims": _without_batch(found)}


def _without_batch(dims: Ints) -> Ints:
    if not dims or 0 in dims:
        raise ValueError("rolling or flipping the batch dimension mixes images")
    return dims


RULE = rearrangement("roll", forward, back, targets=spellings(adapt, "roll"))
FLIP = rearrangement("flip", flip, flip, targets=spellings(adapt_flip, "flip"))
