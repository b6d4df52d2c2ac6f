"""Mean or sum over dimensions: y = (1 / n) sum x, with a number for 1 / n."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from naflow_fx.rules._shapes import full_shape
from naflow_fx.rules.contract import Arguments, Labels, Rule


def forward(
    input: Tensor, dim: tuple[int, ...] | None = None, keepdim: bool = False, total: bool = False
) -> Tensor:
    """The mean over `dim` (all but the batch dimension if None); the sum if `total`."""
    dims = _dims(input.dim(), dim)
    return input.sum(dims, keepdim) if total else input.mean(dims, keepdim)


def linear(v: Tensor, dim: tuple[int, ...] | None, keepdim: bool, total: bool) -> Tensor:
    """A v."""
    return forward(v, dim, keepdim, total)


def transpose(
    w: Tensor,
    dim: tuple[int, ...] | None,
    keepdim: bool,
    total: bool,
    input_shape: tuple[int, ...],
) -> Tensor:
    """A^T w: w spread, divided by the number of entries unless `total`."""
    spread = _spread(w, dim, keepdim, input_shape)
    return spread if total else spread / _count(dim, input_shape)


def support(
    w: Tensor, dim: tuple[int, ...] | None, keepdim: bool, input_shape: tuple[int, ...]
) -> Tensor:
    """P^T w: w spread."""
    return _spread(w, dim, keepdim, input_shape)


def inverse(
    z: Tensor,
    dim: tuple[int, ...] | None,
    keepdim: bool,
    total: bool,
    input_shape: tuple[int, ...],
) -> Tensor:
    """A^+ z: every entry the mean (minimum norm)."""
    spread = _spread(z, dim, keepdim, input_shape)
    return spread / _count(dim, input_shape) if total else spread


def labels(labels: Labels, dim: tuple[int, ...] | None, keepdim: bool) -> Labels:
    """The letters that are left; collapsed ones if kept."""
    dims = {d % len(labels) for d in _dims(len(labels), dim)}
    kept = [("1" if d in dims else label) for d, label in enumerate(labels)]
    return tuple(label for d, label in enumerate(kept) if keepdim or d not in dims)


def _dims(rank: int, dim: tuple[int, ...] | None) -> tuple[int, ...]:
    return tuple(range(1, rank)) if dim is None else dim


def _count(dim: tuple[int, ...] | None, shape: tuple[int, ...]) -> int:
    count = 1
    for d in _dims(len(shape), dim):
        count *= shape[d]
    return count


def _spread(w: Tensor, dim: Any, keepdim: bool, input_shape: tuple[int, ...]) -> Tensor:
    if not keepdim:
        for d in sorted(d % len(input_shape) for d in _dims(len(input_shape), dim)):
            w = w.unsqueeze(d)
    return w.expand(full_shape(input_shape, w))


def _adapt(total: bool) -> Any:
    def arguments(input: Any, dim: Any = None, keepdim: bool = False, **options: Any) -> Arguments:
        dim = options.pop("axis", dim)
        keepdim = options.pop("keepdims", keepdim)
        if dim is None:
            raise ValueError("a mean or sum over the batch dimension mixes images")
        dims = (dim,) if isinstance(dim, int) else tuple(dim)
        return {"input": input, "dim": dims, "keepdim": keepdim, "total": total}

    return arguments


_aten = torch.ops.aten
RULE = Rule(
    "mean",
    forward,
    linear,
    transpose,
    inverse,
    support=support,
    labels=labels,
    equation="least squares, exact",
    targets=dict.fromkeys((torch.mean, "mean", _aten.mean.dim, _aten.mean.default), _adapt(False))
    | dict.fromkeys((torch.sum, "sum", _aten.sum.dim_IntList, _aten.sum.default), _adapt(True)),
)
