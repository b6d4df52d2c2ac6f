"""Roll and flip: y = x with its entries moved along dimensions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from naflow_fx.rules.contract import Arguments, Rule

Ints = tuple[int, ...]


def forward(input: Tensor, shifts: Ints, dims: Ints) -> Tensor:
    """torch.roll."""
    return torch.roll(input, shifts, dims)


def linear(v: Tensor, shifts: Ints, dims: Ints) -> Tensor:
    """A v: v rolled."""
    return torch.roll(v, shifts, dims)


def transpose(w: Tensor, shifts: Ints, dims: Ints) -> Tensor:
    """A^T w: w rolled back."""
    return torch.roll(w, tuple(-s for s in shifts), dims)


def inverse(z: Tensor, shifts: Ints, dims: Ints) -> Tensor:
    """z rolled back."""
    return transpose(z, shifts, dims)


def flip(input: Tensor, dims: Ints) -> Tensor:
    """torch.flip."""
    return torch.flip(input, dims)


def flip_linear(v: Tensor, dims: Ints) -> Tensor:
    """A v: v flipped."""
    return torch.flip(v, dims)


def flip_transpose(w: Tensor, dims: Ints) -> Tensor:
    """A^T w: w flipped."""
    return torch.flip(w, dims)


def flip_inverse(z: Tensor, dims: Ints) -> Tensor:
    """z flipped."""
    return torch.flip(z, dims)


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


_aten = torch.ops.aten
RULE = Rule(
    "roll",
    forward,
    linear,
    transpose,
    inverse,
    gating="carries",
    equation="exact",
    targets=dict.fromkeys((torch.roll, "roll", _aten.roll.default), adapt),
)
FLIP = Rule(
    "flip",
    flip,
    flip_linear,
    flip_transpose,
    flip_inverse,
    gating="carries",
    equation="exact",
    targets=dict.fromkeys((torch.flip, "flip", _aten.flip.default), adapt_flip),
)
