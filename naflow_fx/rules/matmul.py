"""Matrix product with a captured factor: y = x G or G x; the factor is a constant or a gate."""

from __future__ import annotations

import operator
from typing import Any

from torch import Tensor

from naflow_fx.rules import linear as fully_connected
from naflow_fx.rules._shapes import sum_to
from naflow_fx.rules._spellings import spellings
from naflow_fx.rules.contract import MIXED, Arguments, Labels, Rule


def forward(input: Tensor, other: Tensor, left: bool = False) -> Tensor:
    """x G over the last two dimensions, G x if `left`; G = `other`."""
    return other @ input if left else input @ other


def transpose(w: Tensor, other: Tensor, left: bool, input_shape: tuple[int, ...]) -> Tensor:
    """A^T w = w G^T, or G^T w, summed over what was broadcast."""
    return sum_to(forward(w, other.mT, left), input_shape)


def vjp(
    w: Tensor,
    input: Tensor,
    other: Tensor,
    left: bool,
    input_shape: tuple[int, ...],
    active: tuple[int, ...] = (0, 1),
) -> tuple[Tensor, Tensor | None]:
    """(w G^T, x^T w), or (G^T w, w x^T)."""
    first = transpose(w, other, left, input_shape)
    if 1 not in active:
        return first, None
    shape = (-1 if other.dim() == w.dim() else 1, *other.shape[1:])
    return first, sum_to(w @ input.mT if left else input.mT @ w, shape)


def swap(arguments: Arguments) -> Arguments:
    """The same product with the other factor captured."""
    return arguments | {
        "input": arguments["other"], "other": arguments["input"], "left": not arguments["left"],
    }  # fmt: skip


def labels(labels: Labels, active: tuple[int, ...]) -> Labels:
    """A product of two activations mixes what it pairs."""
    return labels if 1 not in active else (*labels[:-2], MIXED, MIXED)


def adapt(input: Any, other: Any) -> Any:
    """matmul's arguments; a constant matrix on the right is a fully connected layer."""
    if isinstance(other, Tensor) and other.dim() == 2:
        return fully_connected.forward, {"input": input, "weight": other.t(), "bias": None}
    if any(isinstance(x, Tensor) and x.dim() < 2 for x in (input, other)):
        raise ValueError("matmul with a constant vector")
    return {"input": input, "other": other}


def adapt_addmm(
    input: Any, mat1: Any, mat2: Any, *, beta: float = 1, alpha: float = 1
) -> tuple[Any, Arguments]:
    """addmm's arguments: bias + x W, with constants for both."""
    if not isinstance(mat2, Tensor) or not isinstance(input, Tensor):
        raise ValueError("addmm of activations")
    arguments = {"input": mat1, "weight": alpha * mat2.t(), "bias": beta * input}
    return fully_connected.forward, arguments


RULE = Rule(
    "matmul",
    forward,
    forward,
    transpose,
    vjp=vjp,
    operands=("input", "other"),
    control=("other",),
    swap=swap,
    labels=labels,
    equation="Eqs. 6-10, damped least squares",
    targets=spellings(adapt, "matmul", operator.matmul, "bmm", "mm")
    | spellings(adapt_addmm, "addmm"),
)
