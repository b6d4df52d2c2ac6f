"""Quotient: y = x / g; the divisor g is captured like a gate, or it is a constant."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor

from naflow_fx.rules import pow as power
from naflow_fx.rules._shapes import full_shape, sum_to
from naflow_fx.rules._spellings import spellings
from naflow_fx.rules.contract import Rule


def forward(input: Tensor, gate: Tensor | float) -> Tensor:
    """x / g, broadcast."""
    return input / gate


def linear(v: Tensor, gate: Tensor | float, output_shape: tuple[int, ...]) -> Tensor:
    """A v = v / g."""
    y = v / gate
    return y.expand(full_shape(output_shape, y))


def transpose(w: Tensor, gate: Tensor | float, input_shape: tuple[int, ...]) -> Tensor:
    """A^T w = w / g."""
    return sum_to(w / gate, input_shape)


def inverse(z: Tensor, gate: Tensor | float, input_shape: tuple[int, ...]) -> Tensor:
    """g z; least squares where the input was broadcast."""
    if not isinstance(gate, Tensor):
        return z * gate
    d = torch.ones_like(z) / gate
    return sum_to(z * d, input_shape) / sum_to(d * d, input_shape)


def vjp(
    w: Tensor,
    input: Tensor,
    gate: Tensor | float,
    output: Tensor,
    input_shape: tuple[int, ...],
    active: tuple[int, ...] = (0, 1),
) -> tuple[Tensor, Tensor | None]:
    """(w / g, -w y / g), each summed over what was broadcast."""
    part = w / gate
    if not isinstance(gate, Tensor) or 1 not in active:
        return sum_to(part, input_shape), None
    shape = (-1 if gate.dim() == w.dim() else 1, *gate.shape[1:]) if gate.dim() else ()
    return sum_to(part, input_shape), sum_to(-part * output, shape)


def diagonal(gate: Tensor | float) -> Tensor | float:
    """d = 1 / g."""
    return 1 / gate


def adapt(input: Any, other: Any, *, rounding_mode: Any = None) -> Any:
    """torch.div's arguments; a constant divided by an activation is a power of it."""
    if rounding_mode is not None:
        raise ValueError(f"rounding_mode={rounding_mode!r} is not differentiable")
    if isinstance(input, (int, float, Tensor)):
        factor = float(input) if isinstance(input, int) else input
        return power.forward, {"input": other, "exponent": -1, "factor": factor}
    return {"input": input, "gate": other}


def adapt_reversed(input: Any, other: Any) -> Any:
    """The arguments of the method that `other / input` calls."""
    return adapt(other, input)


RULE = Rule(
    "div",
    forward,
    linear,
    transpose,
    inverse,
    vjp=vjp,
    diagonal=diagonal,
    operands=("input", "gate"),
    control=("gate",),
    gating="carries",
    equation="exact",
    targets={
        **spellings(adapt, "div.Tensor", operator.truediv, operator.itruediv, in_place=True),
        **spellings(adapt, "divide", "true_divide"),
        "__rtruediv__": adapt_reversed,
    },
)
