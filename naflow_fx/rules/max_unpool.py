"""Max unpool in 1, 2 or 3 space dimensions: y[index[i]] = x[i], 0 elsewhere (SegNet)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from naflow_fx.rules._shapes import full_shape
from naflow_fx.rules._spellings import plain, spellings
from naflow_fx.rules.contract import Arguments, Rule


def forward(input: Tensor, indices: Tensor, output_shape: tuple[int, ...]) -> Tensor:
    """x at the indices, int64 of x's shape, flat over the output's space: what a max pool gave.

    Of several at one place the last, as torch has it.
    """
    zeros = input.new_zeros(full_shape(output_shape, input))
    return zeros.flatten(2).scatter(2, indices.flatten(2), input.flatten(2)).reshape(zeros.shape)


def transpose(w: Tensor, indices: Tensor) -> Tensor:
    """A^T w: w read at the indices, at each of those that share a place, as autograd has it."""
    return w.flatten(2).gather(2, indices.flatten(2)).reshape(indices.shape)


def adapt(
    input: Any, indices: Any, kernel_size: Any = None, stride: Any = None, padding: Any = 0,
    output_size: Any = None,
) -> Arguments:  # fmt: skip
    """The arguments of torch's max_unpoolNd; the output's shape is known."""
    return {"input": input, "indices": indices}


RULE = Rule(
    "max_unpool",
    forward,
    forward,
    transpose,
    transpose,
    support=transpose,
    operands=("input", "indices"),
    control=("indices",),
    equation="exact",
    targets=spellings(adapt, "max_unpool1d", "max_unpool2d", "max_unpool3d"),
    modules=dict.fromkeys((nn.MaxUnpool1d, nn.MaxUnpool2d, nn.MaxUnpool3d), plain),
)
