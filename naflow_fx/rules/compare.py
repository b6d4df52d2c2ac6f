"""Comparison and its logic: y = 1 where it holds, else 0; no derivative, nothing to invert."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from naflow_fx.rules._shapes import Ints, full_shape
from naflow_fx.rules.contract import Arguments, Rule

KINDS: dict[str, Callable[..., Tensor]] = {
    "gt": torch.gt, "ge": torch.ge, "lt": torch.lt, "le": torch.le, "eq": torch.eq,
    "ne": torch.ne, "logical_and": torch.logical_and, "logical_or": torch.logical_or,
    "logical_not": lambda x, _: torch.logical_not(x),
}  # fmt: skip


def forward(input: Tensor, other: Tensor | float | None, kind: str) -> Tensor:
    """Whether x > y, say, as numbers 0 and 1 of the operands' floating point type."""
    tensors = [x for x in (input, other) if isinstance(x, Tensor)]
    dtype = next((x.dtype for x in tensors if x.is_floating_point()), torch.get_default_dtype())
    return KINDS[kind](input, other).to(dtype)


def linear(v: Tensor, output_shape: Ints) -> Tensor:
    """A v = 0."""
    return v.new_zeros(full_shape(output_shape, v))


def transpose(w: Tensor, input_shape: Ints) -> Tensor:
    """A^T w = A^+ w = 0."""
    return w.new_zeros(full_shape(input_shape, w))


def vjp(w: Tensor, input_shape: Ints) -> tuple[Tensor, None]:
    """0: what was compared does not answer for the score."""
    return transpose(w, input_shape), None


def shift(output: Tensor) -> Tensor:
    """c = y."""
    return output


def _adapt(kind: str) -> Callable[..., Arguments]:
    def arguments(input: Any, other: Any = None) -> Arguments:
        return {"input": input, "other": other, "kind": kind}

    return arguments


def _names(kind: str) -> tuple[Any, ...]:
    """The traced forms of one comparison."""
    aten = getattr(torch.ops.aten, kind)
    found = [kind, getattr(torch, kind), *(getattr(aten, name) for name in aten.overloads()
             if name in ("default", "Scalar", "Tensor"))]  # fmt: skip
    symbols = {"logical_and": operator.and_, "logical_or": operator.or_,
               "logical_not": operator.invert}  # fmt: skip
    return (*found, symbols[kind] if kind in symbols else getattr(operator, kind))


RULE = Rule(
    "compare",
    forward,
    linear,
    transpose,
    transpose,
    shift=shift,
    vjp=vjp,
    operands=("input", "other"),
    equation="a constant",
    targets={name: _adapt(kind) for kind in KINDS for name in _names(kind)},
)
