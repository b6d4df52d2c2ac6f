"""Vector norm along dimensions: y = sum(t x), t its derivative, captured."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from naflow_fx.rules._functional import Dims, checked, pseudo_inverse, reduction, spread
from naflow_fx.rules._spellings import spellings
from naflow_fx.rules.contract import Arguments


def forward(input: Tensor, ord: float, dim: Dims, keepdim: bool = False) -> Tensor:
    """(sum |x|^p)^(1 / p) along `dim`, p = `ord`."""
    result: Tensor = torch.linalg.vector_norm(input, ord, dim, keepdim)
    return result


def weights(input: Tensor, output: Tensor, ord: float, dim: Dims, keepdim: bool) -> Tensor:
    """t = sign(x) |x / y|^(p - 1); 0 where the norm is 0."""
    y = spread(output, input.dim(), dim, keepdim)
    ratio = input.abs() / torch.where(y > 0, y, 1.0)
    return torch.where(y > 0, torch.sign(input) * ratio.pow(ord - 1), 0.0)


def adapt(
    input: Any, p: Any = 2, dim: Any = None, keepdim: bool = False, **options: Any
) -> Arguments:
    """torch.norm's or torch.linalg.vector_norm's arguments."""
    order = options.get("ord", p)
    order = 2 if order in (None, "fro") else order
    if not isinstance(order, (int, float)) or not 1 <= order < float("inf"):
        raise ValueError(f"norm of order {order!r}: wanted a number from 1 on")
    return {"input": input, "ord": float(order), "dim": checked(dim), "keepdim": keepdim}


RULE = reduction(
    "norm",
    forward,
    weights,
    pseudo_inverse,
    "exact, least squares",
    targets=spellings(adapt, torch.linalg.vector_norm, torch.linalg.norm, "norm.ScalarOpt_dim",
                      "linalg_vector_norm"),
)  # fmt: skip
