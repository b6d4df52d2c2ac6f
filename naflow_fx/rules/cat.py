"""Concatenation: y = [x_1, x_2, ...] along one dimension, along a new one (stack), or flattened."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from naflow_fx.rules._shapes import Ints, Shapes, Vectors, full_shape, has_constants, mixes_along
from naflow_fx.rules._spellings import spellings
from naflow_fx.rules.contract import BATCH, CHANNEL_PART, MIXED, Arguments, Labels, Rule, roles


def forward(inputs: Sequence[Tensor], dim: int = 0) -> Tensor:
    """torch.cat of inputs that agree in all other dimensions."""
    return torch.cat(whole_batch(inputs), dim)


def whole_batch(inputs: Sequence[Tensor]) -> list[Tensor]:
    """Constants of one row, the same for every image (a class token), with a row per image."""
    # torch.export asks nothing of a batch that it keeps open: its size is no plain int
    single = [type(x.shape[0]) is int and x.shape[0] == 1 for x in inputs]
    rows = next((x.shape[0] for x, one in zip(inputs, single, strict=True) if not one), 1)
    return [x.expand(rows, *x.shape[1:]) if one else x
            for x, one in zip(inputs, single, strict=True)]  # fmt: skip


def with_zeros(v: Vectors, active: Ints, input_shapes: Shapes) -> list[Tensor]:
    """A vector for every input: zeros in place of constants and None."""
    given = dict(zip(active, v, strict=True))
    like = next(x for x in v if x is not None)
    parts = [(given.get(i), shape) for i, shape in enumerate(input_shapes)]
    return [like.new_zeros(full_shape(shape, like)) if x is None else x for x, shape in parts]


def constants(inputs: Sequence[Tensor], active: Ints) -> list[Tensor] | None:
    """The constant inputs, zeros in place of the others; None: there are none."""
    if len(active) == len(inputs):
        return None
    return [torch.zeros_like(x) if i in active else x for i, x in enumerate(inputs)]


def linear(v: Vectors, dim: int, active: Ints, input_shapes: Shapes) -> Tensor:
    """[v_1, v_2, ...]; None and constants count as zero."""
    return forward(with_zeros(v, active, input_shapes), dim)


def transpose(w: Tensor, dim: int, active: Ints, input_shapes: Shapes) -> tuple[Tensor, ...]:
    """The slice of w of every active input."""
    parts = torch.split(w, [shape[dim] for shape in input_shapes], dim)
    return tuple(parts[i] for i in active)


def inverse(z: Tensor, index: int, dim: int, input_shapes: Shapes) -> Tensor:
    """The slice of z."""
    return torch.split(z, [shape[dim] for shape in input_shapes], dim)[index]


def shift(inputs: Sequence[Tensor], dim: int, active: Ints) -> Tensor | None:
    """c: the constant inputs, zeros elsewhere."""
    found = constants(inputs, active)
    return None if found is None else forward(found, dim)


def adapt(tensors: Any, dim: int = 0, *, out: Any = None) -> Arguments:
    """torch.cat's arguments."""
    return {"inputs": tuple(tensors), "dim": dim}


RULE = Rule(
    "cat",
    **roles(forward, linear, transpose, inverse, shift),
    has_shift=has_constants,
    mixes=mixes_along,
    variadic=True,
    merge="concatenation",
    equation="split",
    targets=spellings(adapt, "cat", "concat", "concatenate"),
)


def stack(inputs: Sequence[Tensor], dim: int = 0) -> Tensor:
    """torch.stack of inputs of one shape."""
    return torch.stack(whole_batch(inputs), dim)


def stack_linear(v: Vectors, dim: int, active: Ints, input_shapes: Shapes) -> Tensor:
    """[v_1, v_2, ...]; None and constants count as zero."""
    return stack(with_zeros(v, active, input_shapes), dim)


def stack_transpose(w: Tensor, dim: int, active: Ints) -> tuple[Tensor, ...]:
    """The slice of w of every active input."""
    return tuple(w.select(dim, i) for i in active)


def stack_inverse(z: Tensor, index: int, dim: int) -> Tensor:
    """The slice of z."""
    return z.select(dim, index)


def stack_shift(inputs: Sequence[Tensor], dim: int, active: Ints) -> Tensor | None:
    """c: the constant inputs, zeros elsewhere."""
    found = constants(inputs, active)
    return None if found is None else stack(found, dim)


def stack_labels(labels: Labels, dim: int, output_shape: Ints) -> Labels:
    """The new dimension is a part of the channels: it merges with them, or is summed away."""
    at = dim % len(output_shape)
    return (*labels[:at], CHANNEL_PART, *labels[at:])


def adapt_stack(tensors: Any, dim: int = 0, *, out: Any = None) -> Arguments:
    """torch.stack's arguments."""
    if dim == 0:
        raise ValueError("stack along a new batch dimension")
    return adapt(tensors, dim)


STACK = Rule(
    "stack",
    **roles(stack, stack_linear, stack_transpose, stack_inverse, stack_shift, stack_labels),
    has_shift=has_constants,
    mixes=lambda: "",
    variadic=True,
    equation="split",
    targets=spellings(adapt_stack, "stack"),
)


def flat(inputs: Sequence[Tensor]) -> Tensor:
    """All inputs [N, ...] flattened and concatenated, [N, total]: of several feature nodes.

    No network has it: the compiler joins feature nodes with it, so that a fork which they share is
    the entry of a region (docs/method.md 1).
    """
    return torch.cat([x.flatten(1) for x in inputs], 1)


def flat_linear(v: Vectors, active: Ints, input_shapes: Shapes) -> Tensor:
    """[flat(v_1), ...]; None counts as zero."""
    return flat(with_zeros(v, active, input_shapes))


def flat_transpose(w: Tensor, input_shapes: Shapes) -> tuple[Tensor, ...]:
    """Each input's part of w, in its shape."""
    parts = torch.split(w, [math.prod(shape[1:]) for shape in input_shapes], 1)
    return tuple(
        part.reshape(full_shape(shape, w)) for part, shape in zip(parts, input_shapes, strict=True)
    )


def flat_inverse(z: Tensor, index: int, input_shapes: Shapes) -> Tensor:
    """The part of z of input `index`."""
    return flat_transpose(z, input_shapes)[index]


FLAT = Rule(
    "flat_cat",
    **roles(flat, flat_linear, flat_transpose, flat_inverse),
    labels=lambda labels: (BATCH, MIXED),
    variadic=True,
    merge="features",
    equation="split",
)
