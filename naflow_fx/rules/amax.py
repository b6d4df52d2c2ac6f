"""Largest or smallest along dimensions: y = sum(t x), t the captured winners."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from naflow_fx.rules import maximum
from naflow_fx.rules._functional import Dims, checked, reduction, spread
from naflow_fx.rules._spellings import spellings
from naflow_fx.rules.contract import Arguments


def forward(
    input: Tensor, dim: Dims, keepdim: bool = False, largest: bool = True, first: bool = False
) -> Tensor:
    """The largest along `dim`, the smallest unless `largest`; `first`: in a tie, one wins."""
    return torch.amax(input, dim, keepdim) if largest else torch.amin(input, dim, keepdim)


def winners(
    input: Tensor, output: Tensor, dim: Dims, keepdim: bool, largest: bool, first: bool
) -> Tensor:
    """t: 1 at the winner, else 0; torch.amax shares a tie, torch.max gives it to one."""
    if first:
        index = input.argmax(dim[0], True) if largest else input.argmin(dim[0], True)
        return torch.zeros_like(input).scatter(dim[0], index, 1.0)
    won = (input == spread(output, input.dim(), dim, keepdim)).to(input.dtype)
    return won / won.sum(dim, keepdim=True)


def inverse(z: Tensor, weights: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    """z at the winners, 0 elsewhere (Eq. 14)."""
    return torch.where(weights > 0, spread(z, weights.dim(), dim, keepdim), 0.0)


def adapt(largest: bool) -> Any:
    """The adapter for amax and amin."""

    def arguments(
        input: Any, dim: Any = None, keepdim: bool = False, *, piece: int = 0, **names: Any
    ) -> Any:
        dim, keepdim = names.get("axis", dim), names.get("keepdims", keepdim)
        return _arguments(input, dim, keepdim, largest, False)

    return arguments


def adapt_max(largest: bool) -> Any:
    """The adapter for max and min: of one tensor along a dimension, or of two tensors."""

    def arguments(
        input: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None, piece: int = 0,
        **names: Any,
    ) -> Any:  # fmt: skip
        dim, keepdim = names.get("axis", dim), names.get("keepdims", keepdim)
        second = other if other is not None else dim
        if second is not None and not isinstance(second, (int, tuple)):
            return maximum.forward, {"inputs": (input, second), "largest": largest}
        if piece == 1:
            raise ValueError("the index of a maximum has no derivative")
        return _arguments(input, dim, keepdim, largest, isinstance(dim, int))

    return arguments


def _arguments(input: Any, dim: Any, keepdim: bool, largest: bool, first: bool) -> Arguments:
    return {"input": input, "dim": checked(dim), "keepdim": keepdim, "largest": largest,
            "first": first}  # fmt: skip


RULE = reduction(
    "amax",
    forward,
    winners,
    inverse,
    "Eq. 14",
    targets={
        **spellings(adapt(True), "amax"),
        **spellings(adapt(False), "amin"),
        **spellings(adapt_max(True), "max", "max.dim"),
        **spellings(adapt_max(False), "min", "min.dim"),
    },
)
