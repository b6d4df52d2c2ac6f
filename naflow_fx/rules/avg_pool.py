"""Average pool in 1, 2 or 3 space dimensions: y = P x, windowed or adaptive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from naflow_fx.rules._separable import (
    Matrices,
    axis_matrix,
    inverse,
    linear,
    pseudo_inverses,
    transpose,
)
from naflow_fx.rules._shapes import tuple_of
from naflow_fx.rules._spellings import by_rank
from naflow_fx.rules.contract import SPACE, Arguments, Labels, Rule, bind
from naflow_fx.rules.max_pool import collapse, pools, sizes

POOL: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
ADAPTIVE: dict[int, Any] = {
    1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d,
}  # fmt: skip


def forward(
    input: Tensor,
    kernel_size: tuple[int, ...] | None = None,
    stride: tuple[int, ...] | None = None,
    padding: tuple[int, ...] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    output_size: tuple[int | None, ...] | None = None,
) -> Tensor:
    """The mean of each window; windows by kernel, or by `output_size` (adaptive)."""
    if output_size is not None:
        adaptive: Tensor = ADAPTIVE[len(output_size)](input, output_size)
        return adaptive
    assert kernel_size is not None
    options = (kernel_size, stride, padding, ceil_mode, count_include_pad)
    if divisor_override:
        options += (divisor_override,)  # type: ignore[assignment]
    pooled: Tensor = POOL[len(kernel_size)](input, *options)
    return pooled


def capture(
    kernel_size: tuple[int, ...] | None,
    stride: tuple[int, ...] | None,
    padding: tuple[int, ...],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
    output_size: tuple[int | None, ...] | None,
    input_shape: tuple[int, ...],
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


def labels(labels: Labels, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> Labels:
    """Space is gone where one window covered all of it, and back where a pool spreads it."""
    spread = tuple(
        SPACE if label == "1" and size != 1 else label
        for label, size in zip(labels, output_shape, strict=True)
    )
    return collapse(spread, input_shape, output_shape)


def adapt(rank: int) -> Callable[..., Arguments]:
    """The adapter for torch's avg_poolNd."""

    def arguments(
        input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0,
        ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: Any = None,
    ) -> Arguments:  # fmt: skip
        kernel = tuple_of(kernel_size, rank)
        return bind(
            forward, input, kernel, tuple_of(stride, rank) if stride else kernel,
            tuple_of(padding, rank), ceil_mode, count_include_pad, divisor_override,
        )  # fmt: skip

    return arguments


def adapt_adaptive(rank: int) -> Callable[..., Arguments]:
    """The adapter for torch's adaptive_avg_poolNd."""

    def arguments(input: Any, output_size: Any) -> Arguments:
        return bind(forward, input, output_size=sizes(output_size, rank))

    return arguments


RULE = Rule(
    "avg_pool",
    forward,
    linear,
    transpose,
    inverse,
    capture=capture,
    captures=("matrices", "inverses"),
    labels=labels,
    equation="least squares, exact",
    targets=by_rank(adapt, "avg_pool{}d") | by_rank(adapt_adaptive, "adaptive_avg_pool{}d"),
    modules=pools(adapt, "AvgPool", "ceil_mode", "count_include_pad", "divisor_override")
    | pools(adapt_adaptive, "AdaptiveAvgPool"),
)
