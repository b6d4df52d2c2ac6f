"""Max pool in 1, 2 or 3 space dimensions: y[i] = x[index[i]], windowed or adaptive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules._shapes import full_shape, tuple_of
from naflow_fx.rules._spellings import by_rank, from_module
from naflow_fx.rules.contract import COLLAPSED, SPACE, Arguments, Function, Labels, Rule, bind

POOL: dict[int, Any] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
ADAPTIVE: dict[int, Any] = {
    1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d,
}  # fmt: skip


def forward(
    input: Tensor,
    kernel_size: tuple[int, ...] | None = None,
    stride: tuple[int, ...] | None = None,
    padding: tuple[int, ...] = (0,),
    dilation: tuple[int, ...] = (1,),
    ceil_mode: bool = False,
    output_size: tuple[int | None, ...] | None = None,
) -> Tensor:
    """The largest of each window; windows by kernel, or by `output_size` (adaptive)."""
    result: Tensor = _pool(input, kernel_size, stride, padding, dilation, ceil_mode, output_size)[0]
    return result


def capture(
    input: Tensor,
    kernel_size: tuple[int, ...] | None,
    stride: tuple[int, ...] | None,
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    ceil_mode: bool,
    output_size: tuple[int | None, ...] | None,
) -> Tensor:
    """index, int64 [N, C, ...]: the winner of each window, flat over the input's space."""
    result: Tensor = _pool(input, kernel_size, stride, padding, dilation, ceil_mode, output_size)[1]
    return result


def linear(v: Tensor, index: Tensor) -> Tensor:
    """A v: v at the winners."""
    return v.flatten(2).gather(2, index.flatten(2)).reshape(index.shape)


def transpose(w: Tensor, index: Tensor, input_shape: tuple[int, ...]) -> Tensor:
    """A^T w: w added up at the winners; the order of the sum is fixed on every device."""
    shape = full_shape(input_shape, w)
    flat, values = index.flatten(2), w.flatten(2)
    zeros = w.new_zeros(shape).flatten(2)
    if w.is_cuda:  # scatter_add is not reproducible there, index_put with accumulation is
        n = torch.arange(shape[0], device=w.device).reshape(-1, 1, 1)
        c = torch.arange(shape[1], device=w.device).reshape(1, -1, 1)
        return zeros.index_put((n, c, flat), values, accumulate=True).reshape(shape)
    return zeros.scatter_add(2, flat, values).reshape(shape)


def inverse(z: Tensor, index: Tensor, input_shape: tuple[int, ...]) -> Tensor:
    """z at the winners, 0 elsewhere (Eq. 14); the mean where windows share a winner (A^+ z)."""
    count = transpose(torch.ones_like(z), index, input_shape)
    return transpose(z, index, input_shape) / count.clamp(min=1)


def collapse(labels: Labels, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> Labels:
    """S -> collapsed, when a pool leaves a single value of a channel."""
    space = [d for d, label in enumerate(labels) if label == SPACE]
    if any(output_shape[d] != 1 for d in space):
        return labels
    return tuple(COLLAPSED if label == SPACE else label for label in labels)


def _pool(
    input: Tensor,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    output_size: Any,
) -> tuple[Tensor, Tensor]:
    if output_size is not None:
        found = ADAPTIVE[len(output_size)](input, output_size, return_indices=True)
    else:
        found = POOL[len(kernel_size)](
            input, kernel_size, stride, padding, dilation, ceil_mode, return_indices=True
        )
    return found[0], found[1]


def adapt(rank: int) -> Callable[..., Arguments]:
    """The adapter for torch's max_poolNd."""

    def arguments(
        input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
        ceil_mode: bool = False, return_indices: bool = False, piece: int = 0,
    ) -> Arguments:  # fmt: skip
        kernel = tuple_of(kernel_size, rank)
        return bind(
            forward, input, kernel, tuple_of(stride, rank) if stride else kernel,
            tuple_of(padding, rank), tuple_of(dilation, rank), ceil_mode,
        )  # fmt: skip

    return arguments


def adapt_adaptive(rank: int) -> Callable[..., Arguments]:
    """The adapter for torch's adaptive_max_poolNd."""

    def arguments(
        input: Any, output_size: Any, return_indices: bool = False, piece: int = 0
    ) -> Arguments:
        return bind(forward, input, output_size=sizes(output_size, rank))

    return arguments


def sizes(output_size: Any, rank: int) -> tuple[int | None, ...]:
    """The size of an adaptive pool's result, None for an axis as it is; one number for all."""
    return (output_size,) * rank if isinstance(output_size, int) else tuple(output_size)


def pools(adapt: Function, kind: str, *options: str) -> dict[type, Function]:
    """The modules nn.<kind>1d, 2d and 3d of pools, with what they know beside their windows."""
    names = ("kernel_size", "stride", "padding", "output_size", *options)
    return {getattr(nn, f"{kind}{rank}d"): from_module(adapt(rank), *names) for rank in (1, 2, 3)}


RULE = Rule(
    "max_pool",
    forward,
    linear,
    transpose,
    inverse,
    capture=capture,
    captures=("index",),
    labels=collapse,
    equation="Eq. 14",
    targets=by_rank(adapt, "max_pool{}d", "max_pool{}d_with_indices")
    | by_rank(adapt_adaptive, "adaptive_max_pool{}d", "adaptive_max_pool{}d_with_indices"),
    modules=pools(adapt, "MaxPool", "dilation", "ceil_mode")
    | pools(adapt_adaptive, "AdaptiveMaxPool"),
)
