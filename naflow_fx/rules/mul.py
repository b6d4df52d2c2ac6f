"""Product: y = g x.  The gate g is captured, its branch is not inverted; or it is a constant."""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from torch import Tensor

from naflow_fx.rules import _gate
from naflow_fx.rules._shapes import full_shape, sum_to
from naflow_fx.rules._spellings import spellings
from naflow_fx.rules.contract import Arguments, Rule


def forward(input: Tensor, gate: Tensor | float) -> Tensor:
    """x * g, broadcast."""
    return input * gate


def linear(v: Tensor, gate: Tensor | float, output_shape: tuple[int, ...]) -> Tensor:
    """A v = g v."""
    y = v * gate
    return y.expand(full_shape(output_shape, y))


def transpose(w: Tensor, gate: Tensor | float, input_shape: tuple[int, ...]) -> Tensor:
    """A^T w = g w."""
    return sum_to(w * gate, input_shape)


def inverse(
    z: Tensor, gate: Tensor | float, damping: float, input_shape: tuple[int, ...]
) -> Tensor:
    """g z / (g^2 + damping max g^2), the maximum per sample; z / g where g is a number.

    Where the input was broadcast, the same with sums over its copies: least squares.
    """
    if not isinstance(gate, Tensor):
        return z / gate if gate else torch.zeros_like(z)
    if math.prod(input_shape[1:]) == math.prod(z.shape[1:]):
        return _gate.inverse(z, gate, damping)
    top = sum_to(z * gate, input_shape)
    square = sum_to((gate * gate).expand_as(z), input_shape)
    largest = square.amax(tuple(range(1, square.dim())), keepdim=True)
    bottom = square + damping * largest
    return _gate.quotient(top, bottom)


def vjp(
    w: Tensor,
    input: Tensor,
    gate: Tensor | float,
    input_shape: tuple[int, ...],
    active: tuple[int, ...] = (0, 1),
) -> tuple[Tensor, Tensor | None]:
    """(g w, x w), each summed over what was broadcast."""
    if not isinstance(gate, Tensor) or 1 not in active:
        return sum_to(w * gate, input_shape), None
    shape = (-1 if gate.dim() == input.dim() else 1, *gate.shape[1:]) if gate.dim() else ()
    return sum_to(w * gate, input_shape), sum_to(w * input, shape)


def diagonal(gate: Tensor | float) -> Tensor | float:
    """d = g."""
    return gate


def swap(arguments: Arguments) -> Arguments:
    """The same product with the other operand as its gate."""
    return arguments | {"input": arguments["gate"], "gate": arguments["input"]}


def adapt_negative(input: Any) -> Arguments:
    """neg's argument."""
    return {"input": input, "gate": -1.0}


def adapt(input: Any, other: Any) -> Arguments:
    """torch.mul's arguments; which operand is the gate is found from the graph."""
    return {"input": input, "gate": other}


RULE = Rule(
    "mul",
    forward,
    linear,
    transpose,
    inverse,
    vjp=vjp,
    diagonal=diagonal,
    operands=("input", "gate"),
    control=("gate",),
    swap=swap,
    gating="carries",
    equation="gate, damped",
    targets={
        **spellings(adapt_negative, "neg", "negative", operator.neg, in_place=True),
        **spellings(adapt, "mul.Tensor", operator.mul, operator.imul, in_place=True),
        **spellings(adapt, "multiply"),
    },
)
