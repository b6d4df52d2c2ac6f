"""Pools in 1, 2 or 3 space dimensions, windowed or adaptive: max, average, and max unpool."""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from naflow_fx.rules import _separable
from naflow_fx.rules._separable import Matrices, axis_matrix, pseudo_inverses
from naflow_fx.rules._shapes import Ints, full_shape
from naflow_fx.rules._spellings import by_rank, first, modules_by_rank, per_axis
from naflow_fx.rules.contract import (
    COLLAPSED,
    SPACE,
    Arguments,
    Function,
    Labels,
    Rule,
    asks_like,
    roles,
    same,
)

Sizes = tuple[int | None, ...]


MAX, ADAPTIVE_MAX, AVG, ADAPTIVE_AVG = (
    {rank: getattr(F, f"{name}_pool{rank}d") for rank in (1, 2, 3)}
    for name in ("max", "adaptive_max", "avg", "adaptive_avg")
)


def max_pool(
    input: Tensor,
    kernel_size: Ints | None = None,
    stride: Ints | None = None,
    padding: Ints = (0,),
    dilation: Ints = (1,),
    ceil_mode: bool = False,
    output_size: Sizes | None = None,
) -> Tensor:
    """The largest of each window; windows by kernel, or by `output_size` (adaptive)."""
    return _pooled(input, output_size, kernel_size, stride, padding, dilation, ceil_mode)[0]


@asks_like(max_pool)
def winners(input: Tensor, output_size: Sizes | None, **window: Any) -> Tensor:
    """index, int64 [N, C, ...]: the winner of each window, flat over the input's space."""
    return _pooled(input, output_size, **window)[1]


def _pooled(input: Tensor, size: Sizes | None, *window: Any, **named: Any) -> list[Tensor]:
    """The winners and their places."""
    if size is not None:
        return [*ADAPTIVE_MAX[len(size)](input, size, return_indices=True)]
    return [*MAX[input.dim() - 2](input, *window, **named, return_indices=True)]


def read(v: Tensor, index: Tensor) -> Tensor:
    """A v: v at the winners, y[i] = x[index[i]]."""
    return v.flatten(2).gather(2, index.flatten(2)).reshape(index.shape)


def add_up(w: Tensor, index: Tensor, input_shape: Ints) -> Tensor:
    """A^T w: w added up at the winners; the order of the sum is fixed on every device."""
    shape = full_shape(input_shape, w)
    flat, values = index.flatten(2), w.flatten(2)
    zeros = w.new_zeros(shape).flatten(2)
    if w.is_cuda:  # scatter_add is not reproducible there, index_put with accumulation is
        n = torch.arange(shape[0], device=w.device).reshape(-1, 1, 1)
        c = torch.arange(shape[1], device=w.device).reshape(1, -1, 1)
        return zeros.index_put((n, c, flat), values, accumulate=True).reshape(shape)
    return zeros.scatter_add(2, flat, values).reshape(shape)


def max_pool_inverse(z: Tensor, index: Tensor, input_shape: Ints) -> Tensor:
    """z at the winners, 0 elsewhere (Eq. 14); the mean where windows share a winner (A^+ z)."""
    count = add_up(torch.ones_like(z), index, input_shape)
    return add_up(z, index, input_shape) / count.clamp(min=1)


def pool_labels(labels: Labels, output_shape: Ints) -> Labels:
    """Space is gone where one window covered all of it, and back where a pool spreads it."""
    spaces = [d for d, label in enumerate(labels) if label in (SPACE, COLLAPSED)]
    if any(output_shape[d] != 1 for d in spaces):
        return tuple(SPACE if label == COLLAPSED and size != 1 else label
                     for label, size in zip(labels, output_shape, strict=True))  # fmt: skip
    return tuple(COLLAPSED if label == SPACE else label for label in labels)


def windowed(forward: Function, *sizes: str) -> Function:
    """By rank, the adapter of a pool: what is named in `sizes` has one number for each axis."""
    own = same(forward, "return_indices", "piece", output_size=None)

    @functools.wraps(own)
    def arguments(*args: Any, **kwargs: Any) -> Arguments:
        found = own(*args, **kwargs)
        return found | {"stride": found["stride"] or found["kernel_size"]}

    return per_axis(arguments, *sizes)


def adaptive(forward: Function) -> Function:
    """By rank, the adapter of an adaptive pool; a size of None leaves an axis as it is."""

    def arguments(
        input: Any, output_size: Any, return_indices: bool = False, piece: int = 0
    ) -> Arguments:
        return same(forward)(input, output_size=output_size)

    return per_axis(arguments, "output_size")


_max = windowed(max_pool, "kernel_size", "stride", "padding", "dilation")
_adaptive_max = adaptive(max_pool)
MAX_POOL = Rule(
    "max_pool",
    max_pool,
    read,
    add_up,
    max_pool_inverse,
    capture=winners,
    captures=("index",),
    labels=pool_labels,
    equation="Eq. 14",
    targets=by_rank(_max, "max_pool{}d", "max_pool{}d_with_indices")
    | by_rank(_adaptive_max, "adaptive_max_pool{}d", "adaptive_max_pool{}d_with_indices"),
    modules=modules_by_rank(_max, "MaxPool") | modules_by_rank(_adaptive_max, "AdaptiveMaxPool"),
)


def max_unpool(input: Tensor, indices: Tensor, output_shape: Ints) -> Tensor:
    """y[index[i]] = x[i], 0 elsewhere (SegNet).

    The indices, int64 of x's shape, flat over the output's space: what a max pool gave.  Of
    several at one place the last, as torch has it.
    """
    zeros = input.new_zeros(full_shape(output_shape, input))
    return zeros.flatten(2).scatter(2, indices.flatten(2), input.flatten(2)).reshape(zeros.shape)


def max_unpool_transpose(w: Tensor, indices: Tensor) -> Tensor:
    """A^T w: w read at the indices, at each of those that share a place, as autograd has it."""
    return read(w, indices)


_unpool = same(max_unpool, "kernel_size", "stride", "padding", "output_size")
MAX_UNPOOL = Rule(
    "max_unpool",
    **roles(max_unpool, max_unpool_transpose),
    inverse=max_unpool_transpose,
    support=max_unpool_transpose,
    control=("indices",),
    equation="exact",
    targets=by_rank(lambda rank: _unpool, "max_unpool{}d"),
    modules=modules_by_rank(lambda rank: first, "MaxUnpool"),
)


def avg_pool(
    input: Tensor,
    kernel_size: Ints | None = None,
    stride: Ints | None = None,
    padding: Ints = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    output_size: Sizes | None = None,
) -> Tensor:
    """The mean of each window; windows by kernel, or by `output_size` (adaptive)."""
    if output_size is not None:
        adaptive: Tensor = ADAPTIVE_AVG[len(output_size)](input, output_size)
        return adaptive
    divisor = (divisor_override,) if divisor_override else ()
    options = (kernel_size, stride, padding, ceil_mode, count_include_pad)
    pooled: Tensor = AVG[input.dim() - 2](input, *options, *divisor)
    return pooled


@asks_like(avg_pool)
def matrices(
    divisor_override: int | None, output_size: Sizes | None, input_shape: Ints, **window: Any
) -> tuple[Matrices, Matrices]:
    """One matrix [out, in] per space axis, and their pseudo-inverses; float64 constants."""
    rank = len(output_size or window["kernel_size"])
    matrices = []
    for axis, size in enumerate(input_shape[-rank:]):
        if output_size is not None:
            matrices.append(axis_matrix(F.adaptive_avg_pool1d, size, output_size[axis] or size))
            continue
        along = {k: x[axis] if isinstance(x, tuple) else x for k, x in window.items()}
        matrix = axis_matrix(functools.partial(F.avg_pool1d, **along), size)
        if divisor_override:  # sums of windows, divided once by the given number
            matrix = (matrix > 0).double() / divisor_override ** (1 / rank)
        matrices.append(matrix)
    return tuple(matrices), pseudo_inverses(matrices)


_avg = windowed(avg_pool, "kernel_size", "stride", "padding")
_adaptive_avg = adaptive(avg_pool)
AVG_POOL = Rule(
    "avg_pool",
    **roles(avg_pool, _separable.linear, _separable.transpose, _separable.inverse, pool_labels),
    capture=matrices,
    captures=("matrices", "inverses"),
    equation="least squares, exact",
    targets=by_rank(_avg, "avg_pool{}d") | by_rank(_adaptive_avg, "adaptive_avg_pool{}d"),
    modules=modules_by_rank(_avg, "AvgPool") | modules_by_rank(_adaptive_avg, "AdaptiveAvgPool"),
)
