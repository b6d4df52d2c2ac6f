"""Sampling at fixed places (grid_sample with a constant grid): y = A x, each row a few pixels."""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from naflow_fx.rules._shapes import Ints, full_shape, spatial
from naflow_fx.rules._spellings import spellings
from naflow_fx.rules.contract import Arguments, Rule, roles
from naflow_fx.rules.pools import add_up

_MODES, _PADDINGS = ("bilinear", "nearest"), ("zeros", "border")


def forward(input: Tensor, grid: Tensor, mode: str, padding_mode: str, align: bool) -> Tensor:
    """x [N, C, H, W] at the places of `grid` [1, h, w, 2], (x, y) in [-1, 1]."""
    places = grid.expand(input.shape[0], *grid.shape[1:])
    return F.grid_sample(input, places, mode, padding_mode, align)


def capture(
    grid: Tensor, mode: str, padding_mode: str, align: bool, input_shape: Ints
) -> tuple[Tensor, Tensor]:
    """Which pixels each place reads, counted row by row, int64 [K, h w], and their weights."""
    corners = []
    for axis, size in enumerate(reversed(input_shape[2:])):  # (x, y): along W, along H
        at = (grid[0, ..., axis] + 1) / 2 * (size - 1) if align else (
            ((grid[0, ..., axis] + 1) * size - 1) / 2)  # fmt: skip
        at = at.clamp(0, size - 1) if padding_mode == "border" else at
        low = at.floor()
        near = [(at.round(), torch.ones_like(at))]
        both = [(low, 1 - (at - low)), (low + 1, at - low)]
        corners.append([(i.long().clamp(0, size - 1), w * ((i >= 0) & (i < size)))
                        for i, w in (near if mode == "nearest" else both)])  # fmt: skip
    pairs = list(itertools.product(*corners))
    index = torch.stack([(j * input_shape[-1] + i).flatten() for (i, _), (j, _) in pairs])
    return index, torch.stack([(u * v).flatten() for (_, u), (_, v) in pairs])


def linear(v: Tensor, index: Tensor, weight: Tensor, output_shape: Ints) -> Tensor:
    """A v: the weighted sum of a place's pixels."""
    read = v.flatten(2)[:, :, index] * weight.to(v.dtype)
    return read.sum(2).reshape(full_shape(output_shape, v))


def transpose(w: Tensor, index: Tensor, weight: Tensor, input_shape: Ints) -> Tensor:
    """A^T w: every place's number, weighted, at its pixels."""
    parts = (w.flatten(2).unsqueeze(2) * weight.to(w.dtype)).flatten(2)
    return add_up(parts, index.flatten().expand_as(parts), input_shape)


def support(w: Tensor, index: Tensor, weight: Tensor, input_shape: Ints) -> Tensor:
    """P^T w: the same with weights of 1."""
    return transpose(w, index, weight != 0, input_shape)


def adapt(
    input: Any, grid: Any, mode: str | int = "bilinear", padding_mode: str | int = "zeros",
    align_corners: bool | None = None,
) -> Arguments:  # fmt: skip
    """F.grid_sample's or aten's arguments."""
    if not isinstance(grid, Tensor) or grid.shape[0] != 1:
        raise ValueError("grid_sample at places that were computed from the input")
    mode = _MODES[mode] if isinstance(mode, int) and mode < 2 else mode
    padding = padding_mode
    padding = _PADDINGS[padding] if isinstance(padding, int) and padding < 2 else padding
    if grid.dim() != 4 or mode not in _MODES or padding not in _PADDINGS:
        raise ValueError(f"grid_sample of {grid.dim() - 2} dimensions with {mode}, {padding}")
    return {"input": input, "grid": grid, "mode": mode, "padding_mode": padding,
            "align": bool(align_corners)}  # fmt: skip


RULE = Rule(
    "grid_sample",
    **roles(forward, linear, transpose, capture, support),
    labels=spatial,
    captures=("index", "weight"),
    equation="damped least squares",
    targets=spellings(adapt, "grid_sample", "grid_sampler"),
)
