"""What reductions of a few dimensions share: captured, y = sum(t x) + c with weights t.

The weights are the derivative at the captured point, of the input's shape.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from naflow_fx.rules.contract import COLLAPSED, Function, Labels, Rule

Dims = tuple[int, ...]


def linear(v: Tensor, weights: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    """A v = sum(t v)."""
    return (v * weights).sum(dim, keepdim)


def transpose(w: Tensor, weights: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    """A^T w = t w."""
    return spread(w, weights.dim(), dim, keepdim) * weights


def inverse(
    z: Tensor, input: Tensor, output: Tensor, weights: Tensor, dim: Dims, keepdim: bool
) -> Tensor:
    """A^+ (z - c)."""
    return pseudo_inverse(z - shift(input, output, weights, dim, keepdim), weights, dim, keepdim)


def pseudo_inverse(z: Tensor, weights: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    """A^+ z = t z / sum(t^2); 0 where all weights are 0."""
    square = (weights * weights).sum(dim, keepdim)
    share = torch.where(square > 0, z / torch.where(square > 0, square, 1.0), 0.0)
    return transpose(share, weights, dim, keepdim)


def shift(input: Tensor, output: Tensor, weights: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    """c = y - sum(t x)."""
    return output - linear(input, weights, dim, keepdim)


def labels(labels: Labels, dim: Dims, keepdim: bool) -> Labels:
    """The letters that are left; collapsed ones if kept."""
    gone = {d % len(labels) for d in dim}
    kept = [COLLAPSED if d in gone else label for d, label in enumerate(labels)]
    return tuple(label for d, label in enumerate(kept) if keepdim or d not in gone)


def spread(w: Tensor, rank: int, dim: Dims, keepdim: bool) -> Tensor:
    """w with the reduced dimensions of `rank` back, of size 1."""
    if keepdim:
        return w
    for d in sorted(d % rank for d in dim):
        w = w.unsqueeze(d)
    return w


def checked(dim: int | Dims | list[int] | None) -> Dims:
    """`dim` as a tuple.

    Raises:
        ValueError: it is missing: the batch would be mixed.
    """
    if dim is None or dim == () or dim == []:
        raise ValueError("a reduction over the batch dimension mixes images")
    return (dim,) if isinstance(dim, int) else tuple(dim)


def reduction(
    name: str, forward: Function, weights: Function, inverse: Function, equation: str, **others: Any
) -> Rule:
    """The rule of a reduction: ``weights`` is t, the derivative at the captured point."""
    return Rule(
        name,
        forward,
        linear,
        transpose,
        inverse,
        capture=weights,
        captures=("weights",),
        labels=labels,
        equation=equation,
        **others,
    )
