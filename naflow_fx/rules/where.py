"""Choice between two: y = a where a condition holds, b elsewhere; the condition is captured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from naflow_fx.rules._shapes import has_constants
from naflow_fx.rules._spellings import spellings
from naflow_fx.rules.contract import Arguments, Rule
from naflow_fx.rules.maximum import Operand, inverse, linear, shift, transpose


def forward(inputs: Sequence[Operand], condition: Tensor) -> Tensor:
    """a where `condition` is not 0, else b; both broadcast, one may be a number."""
    a, b = inputs
    return torch.where(condition != 0, a, b)


def capture(condition: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
    """The weights of a and b: 1 and 0 where it holds, 0 and 1 elsewhere."""
    first = (condition != 0).to(output.dtype).expand_as(output)
    return first, 1 - first


def adapt(condition: Any, input: Any = None, other: Any = None) -> Arguments:
    """torch.where's arguments."""
    if input is None:
        raise ValueError("where without two choices: the places have no fixed number")
    return {"inputs": (input, other), "condition": condition}


def adapt_method(input: Any, condition: Any, other: Any) -> Arguments:
    """Tensor.where's arguments."""
    return adapt(condition, input, other)


def adapt_fill(input: Any, mask: Any, value: Any) -> Arguments:
    """masked_fill's arguments."""
    return adapt(mask, value, input)


RULE = Rule(
    "where",
    forward,
    linear,
    transpose,
    inverse,
    capture=capture,
    captures=("first", "second"),
    shift=shift,
    has_shift=has_constants,
    operands=("inputs", "condition"),
    control=("condition",),
    variadic=True,
    equation="Eq. 14",
    targets={
        **spellings(adapt, "where.self", "where.ScalarOther", "where.ScalarSelf"),
        "where": adapt_method,
        **spellings(adapt_fill, "masked_fill.Scalar", "masked_fill.Tensor", in_place=True),
    },
)
