"""Pools in 1, 2 or 3 space dimensions, windowed or adaptive: max, average, and max unpool."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules import _separable
from naflow_fx.rules._separable import Matrices, axis_matrix, pseudo_inverses
from naflow_fx.rules._shapes import Ints, full_shape
from naflow_fx.rules._spellings import by_rank, from_module, per_axis, plain, spellings
from naflow_fx.rules.contract import COLLAPSED, SPACE, Arguments, Function, Labels, Rule, bind, same

Sizes = tuple[int | None, ...]


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
    return _pooled(input, kernel_size, stride, padding, dilation, ceil_mode, output_size)[0]


def winners(
    input: Tensor,
    kernel_size: Ints | None,
    stride: Ints | None,
    padding: Ints,
    dilation: Ints,
    ceil_mode: bool,
    output_size: Sizes | None,
) -> Tensor:
    """index, int64 [N, C, ...]: the winner of each window, flat over the input's space."""
    return _pooled(input, kernel_size, stride, padding, dilation, ceil_mode, output_size)[1]


def _pooled(input: Tensor, kernel: Any, *options: Any) -> tuple[Tensor, Tensor]:
    """The winners and their places; the last option is the output's size."""
    *window, size = options
    pool: Any
    if size is not None:
        pool = (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d)[len(size) - 1]
        found = pool(input, size, return_indices=True)
    else:
        pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(kernel) - 1]
        found = pool(input, kernel, *window, return_indices=True)
    return found[0], found[1]


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


def collapse(labels: Labels, input_shape: Ints, output_shape: Ints) -> Labels:
    """S -> collapsed, when a pool leaves a single value of a channel."""
    space = [d for d, label in enumerate(labels) if label == SPACE]
    if any(output_shape[d] != 1 for d in space):
        return labels
    return tuple(COLLAPSED if label == SPACE else label for label in labels)


def windowed(forward: Function, *sizes: str) -> Function:
    """By rank, the adapter of a pool: what is named in `sizes` has one number for each axis."""
    own = same(forward, "return_indices", "piece", output_size=None)

    def arguments(*args: Any, **kwargs: Any) -> Arguments:
        found: Arguments = own(*args, **kwargs)
        return found | {"stride": found["stride"] or found["kernel_size"]}

    return per_axis(arguments, *sizes)


def adaptive(forward: Function) -> Function:
    """By rank, the adapter of an adaptive pool; a size of None leaves an axis as it is."""

    def adapt(rank: int) -> Function:
        def arguments(
            input: Any, output_size: Any, return_indices: bool = False, piece: int = 0
        ) -> Arguments:
            one = isinstance(output_size, int)
            size = (output_size,) * rank if one else tuple(output_size)
            return bind(forward, input, output_size=size)

        return arguments

    return adapt


def pools(adapt: Function, kind: str, *options: str) -> dict[type, Function]:
    """The modules nn.<kind>1d, 2d and 3d of pools, with what they know beside their windows."""
    names = ("kernel_size", "stride", "padding", "output_size", *options)
    return {getattr(nn, f"{kind}{rank}d"): from_module(adapt(rank), *names) for rank in (1, 2, 3)}


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
    labels=collapse,
    equation="Eq. 14",
    targets=by_rank(_max, "max_pool{}d", "max_pool{}d_with_indices")
    | by_rank(_adaptive_max, "adaptive_max_pool{}d", "adaptive_max_pool{}d_with_indices"),
    modules=pools(_max, "MaxPool", "dilation", "ceil_mode")
    | pools(_adaptive_max, "AdaptiveMaxPool"),
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


def adapt_unpool(
    input: Any, indices: Any, kernel_size: Any = None, stride: Any = None, padding: Any = 0,
    output_size: Any = None,
) -> Arguments:  # fmt: skip
    """The arguments of torch's max_unpoolNd; the output's shape is known."""
    return {"input": input, "indices": indices}


MAX_UNPOOL = Rule(
    "max_unpool",
    max_unpool,
    max_unpool,
    max_unpool_transpose,
    max_unpool_transpose,
    support=max_unpool_transpose,
    operands=("input", "indices"),
    control=("indices",),
    equation="exact",
    targets=spellings(adapt_unpool, "max_unpool1d", "max_unpool2d", "max_unpool3d"),
    modules=dict.fromkeys((nn.MaxUnpool1d, nn.MaxUnpool2d, nn.MaxUnpool3d), plain),
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
    pool: Any
    if output_size is not None:
        pool = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)
        adaptive: Tensor = pool[len(output_size) - 1](input, output_size)
        return adaptive
    assert kernel_size is not None
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(kernel_size) - 1]
    divisor = (divisor_override,) if divisor_override else ()
    options = (kernel_size, stride, padding, ceil_mode, count_include_pad)
    pooled: Tensor = pool(input, *options, *divisor)
    return pooled


def matrices(
    kernel_size: Ints | None,
    stride: Ints | None,
    padding: Ints,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
    output_size: Sizes | None,
    input_shape: Ints,
) -> tuple[Matrices, Matrices]:
    """One matrix [out, in] per space axis, and their pseudo-inverses; float64 constants."""
    rank = len(output_size or kernel_size or ())
    matrices = []
    for axis, size in enumerate(input_shape[-rank:]):
        if output_size is not None:
            bins = output_size[axis] or size
            matrices.append(axis_matrix(F.adaptive_avg_pool1d, size, bins))
            continue
        assert kernel_size is not None and stride is not None
        window = (kernel_size[axis], stride[axis], padding[axis], ceil_mode, count_include_pad)
        matrix = axis_matrix(F.avg_pool1d, size, *window)
        if divisor_override:  # sums of windows, divided once by the given number
            matrix = (matrix > 0).double() / divisor_override ** (1 / rank)
        matrices.append(matrix)
    return tuple(matrices), pseudo_inverses(matrices)


def avg_pool_labels(labels: Labels, input_shape: Ints, output_shape: Ints) -> Labels:
    """Space is gone where one window covered all of it, and back where a pool spreads it."""
    spread = tuple(
        SPACE if label == COLLAPSED and size != 1 else label
        for label, size in zip(labels, output_shape, strict=True)
    )
    return collapse(spread, input_shape, output_shape)


_avg = windowed(avg_pool, "kernel_size", "stride", "padding")
_adaptive_avg = adaptive(avg_pool)
AVG_POOL = Rule(
    "avg_pool",
    avg_pool,
    _separable.linear,
    _separable.transpose,
    _separable.inverse,
    capture=matrices,
    captures=("matrices", "inverses"),
    labels=avg_pool_labels,
    equation="least squares, exact",
    targets=by_rank(_avg, "avg_pool{}d") | by_rank(_adaptive_avg, "adaptive_avg_pool{}d"),
    modules=pools(_avg, "AvgPool", "ceil_mode", "count_include_pad", "divisor_override")
    | pools(_adaptive_avg, "AdaptiveAvgPool"),
)
