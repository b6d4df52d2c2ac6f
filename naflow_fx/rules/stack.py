"""Stack: y = [x_1, x_2, ...] along a new dimension."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from naflow_fx.rules._shapes import has_constants
from naflow_fx.rules._spellings import spellings
from naflow_fx.rules.cat import whole_batch
from naflow_fx.rules.contract import CHANNEL_PART, Arguments, Labels, Rule


def forward(inputs: Sequence[Tensor], dim: int = 0) -> Tensor:
    """torch.stack of inputs of one shape."""
    return torch.stack(whole_batch(inputs), dim)


def linear(
    v: Sequence[Tensor | None],
    dim: int,
    active: tuple[int, ...],
    input_shapes: Sequence[tuple[int, ...]],
) -> Tensor:
    """[v_1, v_2, ...]; None and constants count as zero."""
    given = dict(zip(active, v, strict=True))
    like = next(x for x in v if x is not None)
    parts = [given.get(i) for i in range(len(input_shapes))]
    return forward([torch.zeros_like(like) if x is None else x for x in parts], dim)


def transpose(w: Tensor, dim: int, active: tuple[int, ...]) -> tuple[Tensor, ...]:
    """The slice of w of every active input."""
    return tuple(w.select(dim, i) for i in active)


def inverse(z: Tensor, index: int, dim: int) -> Tensor:
    """The slice of z."""
    return z.select(dim, index)


def shift(inputs: Sequence[Tensor], dim: int, active: tuple[int, ...]) -> Tensor | None:
    """c: the constant inputs, zeros elsewhere."""
    if len(active) == len(inputs):
        return None
    parts = [torch.zeros_like(x) if i in active else x for i, x in enumerate(inputs)]
    return forward(parts, dim)


def labels(labels: Labels, dim: int, output_shape: tuple[int, ...]) -> Labels:
    """The new dimension is a part of the channels: it merges with them, or is summed away."""
    at = dim % len(output_shape)
    return (*labels[:at], CHANNEL_PART, *labels[at:])


def adapt(tensors: Any, dim: int = 0, *, out: Any = None) -> Arguments:
    """torch.stack's arguments."""
    if dim == 0:
        raise ValueError("stack along a new batch dimension")
    return {"inputs": tuple(tensors), "dim": dim}


RULE = Rule(
    "stack",
    forward,
    linear,
    transpose,
    inverse,
    shift=shift,
    has_shift=has_constants,
    operands=("inputs",),
    variadic=True,
    labels=labels,
    equation="split",
    targets=spellings(adapt, "stack"),
)
