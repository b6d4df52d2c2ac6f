"""Broadcasting to a shape: y = x, repeated along dimensions of size 1."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from naflow_fx.rules._shapes import full_shape, grown, sum_to
from naflow_fx.rules.contract import Arguments, Labels, Rule


def forward(input: Tensor, output_shape: tuple[int, ...]) -> Tensor:
    """x broadcast to `output_shape`, -1 at the batch dimension."""
    return input.expand(full_shape(output_shape, input))


def linear(v: Tensor, output_shape: tuple[int, ...]) -> Tensor:
    """A v: v broadcast."""
    return forward(v, output_shape)


def transpose(w: Tensor, input_shape: tuple[int, ...]) -> Tensor:
    """A^T w: the sum over the copies."""
    return sum_to(w, input_shape)


def inverse(z: Tensor, input_shape: tuple[int, ...]) -> Tensor:
    """A^+ z: the mean of the copies."""
    total = sum_to(z, input_shape)
    return total / (z[0].numel() / total[0].numel())


def labels(labels: Labels, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> Labels:
    """Space is back where a single value was spread."""
    return grown(labels, input_shape, output_shape)


def adapt(input: Any, *rest: Any, **options: Any) -> Arguments:
    """The first argument; the shape itself is known from the example."""
    return {"input": input}


_aten = torch.ops.aten
RULE = Rule(
    "expand",
    forward,
    linear,
    transpose,
    inverse,
    labels=labels,
    gating="carries",
    equation="least squares, exact",
    targets=dict.fromkeys(
        ("expand", "expand_as", "broadcast_to", torch.broadcast_to, _aten.expand.default,
         _aten.expand_as.default, _aten.broadcast_to.default),
        adapt,
    ),
)  # fmt: skip
