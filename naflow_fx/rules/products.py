"""Products and quotients: y = g x, y = x / g.  The gate g is captured, or it is a constant."""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from torch import Tensor

from naflow_fx.rules import gates, tangents
from naflow_fx.rules._shapes import Ints, full_shape, opened, sum_to
from naflow_fx.rules._spellings import spellings
from naflow_fx.rules.contract import Arguments, Rule, roles, same


def mul(input: Tensor, gate: Tensor | float) -> Tensor:
    """x * g, broadcast."""
    return input * gate


def mul_linear(v: Tensor, gate: Tensor | float, output_shape: Ints) -> Tensor:
    """A v = g v."""
    y = v * gate
    return y.expand(full_shape(output_shape, y))


def mul_transpose(w: Tensor, gate: Tensor | float, input_shape: Ints) -> Tensor:
    """A^T w = g w."""
    return sum_to(w * gate, input_shape)


def mul_inverse(z: Tensor, gate: Tensor | float, damping: float, input_shape: Ints) -> Tensor:
    """g z / (g^2 + damping max g^2), the maximum per sample; z / g where g is a number.

    Where the input was broadcast, the same with sums over its copies: least squares.
    """
    if not isinstance(gate, Tensor):
        return z / gate if gate else torch.zeros_like(z)
    if math.prod(input_shape[1:]) == math.prod(z.shape[1:]):
        return gates.inverse(z, gate, damping)
    top = sum_to(z * gate, input_shape)
    square = sum_to((gate * gate).expand_as(z), input_shape)
    largest = square.amax(tuple(range(1, square.dim())), keepdim=True)
    bottom = square + damping * largest
    return gates.quotient(top, bottom)


def mul_vjp(
    w: Tensor, input: Tensor, gate: Tensor | float, input_shape: Ints, active: Ints
) -> tuple[Tensor, Tensor | None]:
    """(g w, x w), each summed over what was broadcast."""
    first = sum_to(w * gate, input_shape)
    if 1 not in active or not isinstance(gate, Tensor):
        return first, None
    return first, sum_to(w * input, opened(gate, input))


def mul_diagonal(gate: Tensor | float) -> Tensor | float:
    """d = g."""
    return gate


def swap(arguments: Arguments) -> Arguments:
    """The same product with the other operand as its gate."""
    return arguments | {"input": arguments["gate"], "gate": arguments["input"]}


def _mul(input: Any, other: Any) -> Arguments:
    """torch.mul's arguments; which operand is the gate is found from the graph."""
    return {"input": input, "gate": other}


MUL = Rule(
    "mul",
    **roles(mul, mul_linear, mul_transpose, mul_inverse, mul_vjp, mul_diagonal),
    control=("gate",),
    swap=swap,
    gating="carries",
    equation="gate, damped",
    targets={
        **spellings(same(mul, gate=-1.0), "neg", "negative", operator.neg, in_place=True),
        **spellings(_mul, "mul.Tensor", operator.mul, operator.imul, in_place=True),
        **spellings(_mul, "multiply"),
    },
)


def div(input: Tensor, gate: Tensor | float) -> Tensor:
    """x / g, broadcast; the divisor g is captured like a gate, or it is a constant."""
    return input / gate


def div_linear(v: Tensor, gate: Tensor | float, output_shape: Ints) -> Tensor:
    """A v = v / g."""
    y = v / gate
    return y.expand(full_shape(output_shape, y))


def div_transpose(w: Tensor, gate: Tensor | float, input_shape: Ints) -> Tensor:
    """A^T w = w / g."""
    return sum_to(w / gate, input_shape)


def div_inverse(z: Tensor, gate: Tensor | float, input_shape: Ints) -> Tensor:
    """g z; least squares where the input was broadcast."""
    if not isinstance(gate, Tensor):
        return z * gate
    d = torch.ones_like(z) / gate
    return sum_to(z * d, input_shape) / sum_to(d * d, input_shape)


def div_vjp(
    w: Tensor, gate: Tensor | float, output: Tensor, input_shape: Ints, active: Ints
) -> tuple[Tensor, Tensor | None]:
    """(w / g, -w y / g), each summed over what was broadcast."""
    part = w / gate
    first = sum_to(part, input_shape)
    if 1 not in active or not isinstance(gate, Tensor):
        return first, None
    return first, sum_to(-part * output, opened(gate, w))


def div_diagonal(gate: Tensor | float) -> Tensor | float:
    """d = 1 / g."""
    return 1 / gate


def adapt_div(input: Any, other: Any, *, rounding_mode: Any = None) -> Any:
    """torch.div's arguments; a constant divided by an activation is a power of it."""
    if rounding_mode is not None:
        raise ValueError(f"rounding_mode={rounding_mode!r} is not differentiable")
    if isinstance(input, (int, float, Tensor)):
        factor = float(input) if isinstance(input, int) else input
        return tangents.power, {"input": other, "exponent": -1, "factor": factor}
    return {"input": input, "gate": other}


DIV = Rule(
    "div",
    **roles(div, div_linear, div_transpose, div_inverse, div_vjp, div_diagonal),
    control=("gate",),
    gating="carries",
    equation="exact",
    targets={
        **spellings(adapt_div, "div.Tensor", operator.truediv, operator.itruediv, in_place=True),
        **spellings(adapt_div, "divide", "true_divide"),
        "__rtruediv__": lambda input, other: adapt_div(other, input),
    },
)
