"""Broadcasting to a shape: y = x, repeated along dimensions of size 1."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from naflow_fx.rules._shapes import full_shape, grown, sum_to
from naflow_fx.rules._spellings import spellings
from naflow_fx.rules.contract import Arguments, Rule


def forward(input: Tensor, output_shape: tuple[int, ...]) -> Tensor:
    """x broadcast to `output_shape`, -1 at the batch dimension."""
    return input.expand(full_shape(output_shape, input))


def transpose(w: Tensor, input_shape: tuple[int, ...]) -> Tensor:
    """A^T w: the sum over the copies."""
    return sum_to(w, input_shape)


def inverse(z: Tensor, input_shape: tuple[int, ...]) -> Tensor:
    """A^+ z: the mean of the copies."""
    total = sum_to(z, input_shape)
    return total / (z[0].numel() / total[0].numel())


def adapt(input: Any, *rest: Any, **options: Any) -> Arguments:
    """The first argument; the shape itself is known from the example."""
    return {"input": input}


RULE = Rule(
    "expand",
    forward,
    forward,
    transpose,
    inverse,
    labels=grown,
    gating="carries",
    equation="least squares, exact",
    targets=spellings(adapt, "expand", "expand_as", "broadcast_to"),
)
