"""Choices between two: y = a or b at each place, which one is captured: maximum, minimum, where."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from naflow_fx.rules._shapes import Ints, Shapes, Vectors, has_constants, sum_to
from naflow_fx.rules._spellings import spellings
from naflow_fx.rules.contract import Arguments, Function, Rule, roles
from naflow_fx.rules.gates import quotient

Operand = Tensor | float


def linear(v: Vectors, first: Tensor, second: Tensor, active: Ints) -> Tensor:
    """Sum of the chosen v; None counts as zero."""
    terms = [x * (first, second)[i] for x, i in zip(v, active, strict=True) if x is not None]
    return reduce(operator.add, terms)


def transpose(
    w: Tensor, first: Tensor, second: Tensor, active: Ints, input_shapes: Shapes
) -> tuple[Tensor, ...]:
    """w where the input was chosen, summed over what was broadcast."""
    return tuple(sum_to(w * (first, second)[i], input_shapes[i]) for i in active)


def inverse(
    z: Tensor,
    index: int,
    values: Vectors,
    inputs: Sequence[Operand],
    first: Tensor,
    second: Tensor,
    active: Ints,
    input_shapes: Shapes,
) -> Tensor:
    """What remains of z where the input was chosen, 0 elsewhere (A^+)."""
    constants = shift(inputs, first, second, active)
    terms = [x * (first, second)[i] for x, i in zip(values, active, strict=True) if x is not None]
    rest = reduce(operator.sub, terms, z if constants is None else z - constants)
    share = (first, second)[index]
    bottom = sum_to(share * share, input_shapes[index])
    return quotient(sum_to(rest * share, input_shapes[index]), bottom)


def shift(inputs: Sequence[Operand], first: Tensor, second: Tensor, active: Ints) -> Tensor | None:
    """c: the constant input where it was chosen."""
    rest = [x * (first, second)[i] for i, x in enumerate(inputs) if i not in active]
    return rest[0] if rest else None


def choice(name: str, forward: Function, shares: Function, **others: Any) -> Rule:
    """The rule of a choice: ``shares`` are the two inputs' parts of the output, 1, 0 or 1 / 2."""
    return Rule(
        name,
        **roles(forward, linear, transpose, inverse, shift),
        capture=shares,
        captures=("first", "second"),
        has_shift=has_constants,
        variadic=True,
        equation="Eq. 14",
        **others,
    )


def maximum(inputs: Sequence[Operand], largest: bool = True) -> Tensor:
    """max(x_1, x_2), broadcast; the minimum unless `largest`."""
    a, b = _tensors(inputs)
    return torch.maximum(a, b) if largest else torch.minimum(a, b)


def winners(inputs: Sequence[Operand], output: Tensor) -> tuple[Tensor, Tensor]:
    """Each input's share of the output: 1 where it won, 1 / 2 in a tie, else 0."""
    a, b = ((x == output).to(output.dtype) for x in _tensors(inputs))
    return a / (a + b), b / (a + b)


def _tensors(inputs: Sequence[Operand]) -> list[Tensor]:
    like = next(x for x in inputs if isinstance(x, Tensor))
    return [x if isinstance(x, Tensor) else like.new_full((), x) for x in inputs]


def adapt(largest: bool) -> Function:
    """The adapter for maximum and minimum."""
    return lambda input, other: {"inputs": (input, other), "largest": largest}


MAXIMUM = choice(
    "maximum",
    maximum,
    winners,
    targets=spellings(adapt(True), "maximum", "fmax", torch.ops.aten.max.other)
    | spellings(adapt(False), "minimum", "fmin", torch.ops.aten.min.other),
)


def where(inputs: Sequence[Operand], condition: Tensor) -> Tensor:
    """a where `condition` is not 0, else b; both broadcast, one may be a number."""
    a, b = inputs
    return torch.where(condition != 0, a, b)


def chosen(condition: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
    """The weights of a and b: 1 and 0 where it holds, 0 and 1 elsewhere."""
    first = (condition != 0).to(output.dtype).expand_as(output)
    return first, 1 - first


def adapt_where(condition: Any, input: Any = None, other: Any = None) -> Arguments:
    """torch.where's arguments."""
    if input is None:
        raise ValueError("where without two choices: the places have no fixed number")
    return {"inputs": (input, other), "condition": condition}


def adapt_fill(input: Any, mask: Any, value: Any) -> Arguments:
    """masked_fill's arguments."""
    return adapt_where(mask, value, input)


WHERE = choice(
    "where",
    where,
    chosen,
    control=("condition",),
    targets={
        **spellings(adapt_where, "where.self", "where.ScalarOther", "where.ScalarSelf"),
        "where": lambda input, condition, other: adapt_where(condition, input, other),
        **spellings(adapt_fill, "masked_fill.Scalar", "masked_fill.Tensor", in_place=True),
    },
)
