"""Mean or sum over dimensions: y = (1 / n) sum x, with a number for 1 / n."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from naflow_fx.rules import _functional
from naflow_fx.rules._functional import Dims, checked, labels
from naflow_fx.rules._shapes import full_shape
from naflow_fx.rules._spellings import spellings
from naflow_fx.rules.contract import Arguments, Rule


def forward(input: Tensor, dim: Dims, keepdim: bool = False, total: bool = False) -> Tensor:
    """The mean over `dim`; the sum if `total`."""
    return input.sum(dim, keepdim) if total else input.mean(dim, keepdim)


def transpose(
    w: Tensor, dim: Dims, keepdim: bool, total: bool, input_shape: tuple[int, ...]
) -> Tensor:
    """A^T w: w spread, divided by the number of entries unless `total`."""
    spread = support(w, dim, keepdim, input_shape)
    return spread if total else spread / _count(dim, input_shape)


def support(w: Tensor, dim: Dims, keepdim: bool, input_shape: tuple[int, ...]) -> Tensor:
    """P^T w: w spread."""
    spread = _functional.spread(w, len(input_shape), dim, keepdim)
    return spread.expand(full_shape(input_shape, w))


def inverse(
    z: Tensor, dim: Dims, keepdim: bool, total: bool, input_shape: tuple[int, ...]
) -> Tensor:
    """A^+ z: every entry the mean (minimum norm)."""
    spread = support(z, dim, keepdim, input_shape)
    return spread / _count(dim, input_shape) if total else spread


def _count(dim: Dims, shape: tuple[int, ...]) -> int:
    return math.prod(shape[d] for d in dim)


def _adapt(total: bool) -> Any:
    def arguments(input: Any, dim: Any = None, keepdim: bool = False, **options: Any) -> Arguments:
        dim = checked(options.pop("axis", dim))
        keepdim = options.pop("keepdims", keepdim)
        return {"input": input, "dim": dim, "keepdim": keepdim, "total": total}

    return arguments


RULE = Rule(
    "mean",
    forward,
    forward,
    transpose,
    inverse,
    support=support,
    labels=labels,
    equation="least squares, exact",
    targets=spellings(_adapt(False), "mean", "mean.dim")
    | spellings(_adapt(True), "sum", "sum.dim_IntList"),
)
