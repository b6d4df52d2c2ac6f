"""Concatenation: y = [x_1, x_2, ...] along one dimension."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from naflow_fx.rules._shapes import full_shape, has_constants
from naflow_fx.rules._spellings import spellings
from naflow_fx.rules.contract import Arguments, Rule


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


def linear(
    v: Sequence[Tensor | None],
    dim: int,
    active: tuple[int, ...],
    input_shapes: Sequence[tuple[int, ...]],
) -> Tensor:
    """[v_1, v_2, ...]; None and constants count as zero."""
    given = dict(zip(active, v, strict=True))
    like = next(x for x in v if x is not None)
    parts = []
    for i, shape in enumerate(input_shapes):
        x = given.get(i)
        parts.append(like.new_zeros(full_shape(shape, like)) if x is None else x)
    return forward(parts, dim)


def transpose(
    w: Tensor, dim: int, active: tuple[int, ...], input_shapes: Sequence[tuple[int, ...]]
) -> tuple[Tensor, ...]:
    """The slice of w of every active input."""
    parts = torch.split(w, [shape[dim] for shape in input_shapes], dim)
    return tuple(parts[i] for i in active)


def inverse(z: Tensor, index: int, dim: int, input_shapes: Sequence[tuple[int, ...]]) -> Tensor:
    """The slice of z."""
    return torch.split(z, [shape[dim] for shape in input_shapes], dim)[index]


def shift(
    inputs: Sequence[Tensor],
    dim: int,
    active: tuple[int, ...],
) -> Tensor | None:
    """c: the constant inputs, zeros elsewhere."""
    if len(active) == len(inputs):
        return None
    return forward([torch.zeros_like(x) if i in active else x for i, x in enumerate(inputs)], dim)


def adapt(tensors: Any, dim: int = 0, *, axis: int | None = None, out: Any = None) -> Arguments:
    """torch.cat's arguments."""
    return {"inputs": tuple(tensors), "dim": dim if axis is None else axis}


def mixes(dim: int, at: int, rank: int) -> str:
    """Whether images are joined or split."""
    return "images are joined or split along the batch" if dim % rank == at else ""


RULE = Rule(
    "cat",
    forward,
    linear,
    transpose,
    inverse,
    shift=shift,
    has_shift=has_constants,
    operands=("inputs",),
    variadic=True,
    merge="concatenation",
    mixes=mixes,
    equation="split",
    targets=spellings(adapt, "cat", "concat", "concatenate"),
)
