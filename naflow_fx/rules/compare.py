"""Comparison and its logic: y = 1 where it holds, else 0; no derivative, nothing to invert."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor

from naflow_fx.rules._shapes import Ints, full_shape
from naflow_fx.rules._spellings import spellings
from naflow_fx.rules.contract import Arguments, Function, Rule, roles

SYMBOLS = {
    **{kind: getattr(operator, kind) for kind in ("gt", "ge", "lt", "le", "eq", "ne")},
    "logical_and": operator.and_,
    "logical_or": operator.or_,
    "logical_not": operator.invert,
}


def forward(input: Tensor, other: Tensor | float | None, kind: str) -> Tensor:
    """Whether x > y, say, as numbers 0 and 1 of the operands' floating point type."""
    tensors = [x for x in (input, other) if isinstance(x, Tensor)]
    dtype = next((x.dtype for x in tensors if x.is_floating_point()), torch.get_default_dtype())
    operands = (input,) if other is None else (input, other)
    found: Tensor = getattr(torch, kind)(*operands)
    return found.to(dtype)


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


def _targets(kind: str) -> dict[Any, Function]:
    """The traced forms of one comparison."""

    def adapt(input: Any, other: Any = None) -> Arguments:
        return {"input": input, "other": other, "kind": kind}

    overloads = ("", ".Scalar", ".Tensor") if hasattr(operator, kind) else ("",)
    return spellings(adapt, SYMBOLS[kind], *(kind + overload for overload in overloads))


RULE = Rule(
    "compare",
    **roles(forward, linear, transpose, shift, vjp),
    inverse=transpose,
    operands=("input", "other"),
    equation="a constant",
    targets={target: adapt for kind in SYMBOLS for target, adapt in _targets(kind).items()},
)
