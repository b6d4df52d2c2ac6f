"""Elementwise maximum or minimum of several: y = x_k, with the winner k captured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from naflow_fx.rules._gate import quotient
from naflow_fx.rules._shapes import has_constants, sum_to
from naflow_fx.rules._spellings import spellings
from naflow_fx.rules.contract import Arguments, Rule

Operand = Tensor | float


def forward(inputs: Sequence[Operand], largest: bool = True) -> Tensor:
    """max(x_1, x_2), broadcast; the minimum unless `largest`."""
    a, b = _tensors(inputs)
    return torch.maximum(a, b) if largest else torch.minimum(a, b)


def capture(inputs: Sequence[Operand], output: Tensor) -> tuple[Tensor, Tensor]:
    """Each input's share of the output: 1 where it won, 1 / 2 in a tie, else 0."""
    a, b = ((x == output).to(output.dtype) for x in _tensors(inputs))
    return a / (a + b), b / (a + b)


def linear(
    v: Sequence[Tensor | None],
    first: Tensor,
    second: Tensor,
    active: tuple[int, ...],
) -> Tensor:
    """Sum of the winners' v; None counts as zero."""
    terms = [x * (first, second)[i] for x, i in zip(v, active, strict=True) if x is not None]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def transpose(
    w: Tensor,
    first: Tensor,
    second: Tensor,
    active: tuple[int, ...],
    input_shapes: Sequence[tuple[int, ...]],
) -> tuple[Tensor, ...]:
    """w where the input won, summed over what was broadcast."""
    return tuple(sum_to(w * (first, second)[i], input_shapes[i]) for i in active)


def inverse(
    z: Tensor,
    index: int,
    values: Sequence[Tensor | None],
    inputs: Sequence[Operand],
    first: Tensor,
    second: Tensor,
    active: tuple[int, ...],
    input_shapes: Sequence[tuple[int, ...]],
) -> Tensor:
    """What remains of z where the input won, 0 elsewhere (A^+)."""
    constants = shift(inputs, first, second, active)
    rest = z if constants is None else z - constants
    for value, i in zip(values, active, strict=True):
        if value is not None:
            rest = rest - value * (first, second)[i]
    share = (first, second)[index]
    bottom = sum_to(share * share, input_shapes[index])
    top = sum_to(rest * share, input_shapes[index])
    return quotient(top, bottom)


def shift(
    inputs: Sequence[Operand], first: Tensor, second: Tensor, active: tuple[int, ...]
) -> Tensor | None:
    """c: the constant input where it won."""
    rest = [x * (first, second)[i] for i, x in enumerate(inputs) if i not in active]
    return rest[0] if rest else None


def _tensors(inputs: Sequence[Operand]) -> tuple[Tensor, Tensor]:
    like = next(x for x in inputs if isinstance(x, Tensor))
    first, second = (
        x if isinstance(x, Tensor) else torch.tensor(x, dtype=like.dtype, device=like.device)
        for x in inputs
    )
    return first, second


def adapt(input: Any, other: Any) -> Arguments:
    """torch.maximum's arguments."""
    return {"inputs": (input, other), "largest": True}


def adapt_minimum(input: Any, other: Any) -> Arguments:
    """torch.minimum's arguments."""
    return {"inputs": (input, other), "largest": False}


RULE = Rule(
    "maximum",
    forward,
    linear,
    transpose,
    inverse,
    capture=capture,
    captures=("first", "second"),
    shift=shift,
    has_shift=has_constants,
    operands=("inputs",),
    variadic=True,
    equation="Eq. 14",
    targets={
        **spellings(adapt, "maximum", "fmax", torch.ops.aten.max.other),
        **spellings(adapt_minimum, "minimum", "fmin", torch.ops.aten.min.other),
    },
)
