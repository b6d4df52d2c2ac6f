"""What gates share: captured, y = g x."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from naflow_fx.rules.contract import Function, Rule


def linear(v: Tensor, gate: Tensor) -> Tensor:
    """A v = g v."""
    return v * gate


def transpose(w: Tensor, gate: Tensor) -> Tensor:
    """A^T w = g w."""
    return w * gate


def inverse(z: Tensor, gate: Tensor, damping: float) -> Tensor:
    """g z / (g^2 + damping max g^2), the maximum per sample [N, ...]; 0 where all gates are 0."""
    square = gate * gate
    dims = tuple(range(1 if gate.dim() == z.dim() else 0, gate.dim()))
    largest = square.amax(dims, keepdim=True) if dims else square
    bottom = square + damping * largest
    return z * quotient(gate, bottom)


def quotient(top: Tensor, bottom: Tensor) -> Tensor:
    """top / bottom where that is positive, else 0; of the same shape.

    A division and a threshold: `torch.where` takes ten times as long on a CPU.
    """
    ratio = top / bottom.clamp(min=torch.finfo(bottom.dtype).tiny)
    found: Tensor = torch.ops.aten.threshold_backward(ratio, bottom, 0)
    return found


def diagonal(gate: Tensor) -> Tensor:
    """d = g."""
    return gate


def gate(
    name: str,
    forward: Function,
    factor: Function,
    vjp: Function | None = None,
    inverse: Function = inverse,
    equation: str = "gate, damped",
    **others: Any,
) -> Rule:
    """The rule of y = g(x) x: ``factor`` is g(x); ``vjp`` counts its own derivative, if not 0."""
    return Rule(
        name,
        forward,
        linear,
        transpose,
        inverse,
        capture=factor,
        captures=("gate",),
        vjp=vjp,
        diagonal=diagonal,
        equation=equation,
        **others,
    )
