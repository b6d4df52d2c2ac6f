"""Copies of the same numbers: broadcasting to a shape, repeats, patches as columns."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules._shapes import Ints, full_shape, grown, ints, sum_to, tuple_of
from naflow_fx.rules._spellings import first, from_module, spellings
from naflow_fx.rules.contract import TOKENS, Arguments, Labels, Rule, asks_like, roles


def expand(input: Tensor, output_shape: Ints) -> Tensor:
    """x broadcast to `output_shape`, -1 at the batch dimension."""
    return input.expand(full_shape(output_shape, input))


def expand_transpose(w: Tensor, input_shape: Ints) -> Tensor:
    """A^T w: the sum over the copies."""
    return sum_to(w, input_shape)


def expand_inverse(z: Tensor, input_shape: Ints) -> Tensor:
    """A^+ z: the mean of the copies."""
    return mean_of_copies(z, sum_to(z, input_shape))


def mean_of_copies(z: Tensor, total: Tensor) -> Tensor:
    """The mean, given the sum `total` over equally many copies of each number in z."""
    return total / (z[0].numel() / total[0].numel())


EXPAND = Rule(
    "expand",
    **roles(expand, expand_transpose, expand_inverse),
    labels=grown,
    gating="carries",
    equation="least squares, exact",
    targets=spellings(first, "expand", "expand_as", "broadcast_to"),
)


def repeat(input: Tensor, repeats: Ints, interleave: bool = False) -> Tensor:
    """x, `repeats[d]` times along dimension d; `interleave`: each entry's copies together."""
    if not interleave:
        return input.repeat(repeats)
    for dim, count in enumerate(repeats):
        input = input.repeat_interleave(count, dim) if count > 1 else input
    return input


def repeat_transpose(w: Tensor, repeats: Ints, interleave: bool, input_shape: Ints) -> Tensor:
    """A^T w: the sum over the copies."""
    split = w
    for dim in reversed(range(len(repeats))):
        sizes = (-1, repeats[dim]) if interleave else (repeats[dim], -1)
        split = torch.unflatten(split, dim, sizes)
    copies = [2 * dim + interleave for dim in range(len(repeats))]
    return split.sum(copies).reshape(full_shape(input_shape, w))


def repeat_inverse(z: Tensor, repeats: Ints, interleave: bool, input_shape: Ints) -> Tensor:
    """A^+ z: the mean of the copies."""
    return mean_of_copies(z, repeat_transpose(z, repeats, interleave, input_shape))


def adapt_repeat(input: Any, *repeats: Any, **options: Any) -> Arguments:
    """repeat's or tile's arguments."""
    found = options.get("repeats", options.get("dims", repeats))
    counts = ints(*found)
    if counts and counts[0] != 1:
        raise ValueError(f"repeat{counts}: copies along the batch dimension")
    return {"input": input, "repeats": counts}


def adapt_interleave(input: Any, repeats: Any, dim: Any = None, **options: Any) -> Arguments:
    """repeat_interleave's arguments."""
    if not isinstance(repeats, int) or dim is None or dim < 1:
        raise ValueError("repeat_interleave: wanted one number and a dimension of 1 or more")
    counts = (1,) * dim + (repeats,)
    return {"input": input, "repeats": counts, "interleave": True}


REPEAT = Rule(
    "repeat",
    **roles(repeat, repeat_transpose, repeat_inverse),
    labels=grown,
    gating="carries",
    equation="least squares, exact",
    targets=spellings(adapt_repeat, "repeat", "tile")
    | spellings(adapt_interleave, "repeat_interleave.self_int"),
)


def unfold(input: Tensor, kernel_size: Ints, dilation: Ints, padding: Ints, stride: Ints) -> Tensor:
    """The windows of x [N, C, H, W] as columns, [N, C kh kw, L] (im2col).

    y[:, (c, i, j), l] = x[c] at place (i, j) of window l.
    """
    return F.unfold(input, kernel_size, dilation, padding, stride)


@asks_like(unfold)
def unfold_transpose(w: Tensor, input_shape: Ints, **how: Any) -> Tensor:
    """A^T w: every number added to the pixel that it was copied from (col2im)."""
    return F.fold(w, input_shape[2:], **how)


@asks_like(unfold)
def unfold_inverse(z: Tensor, input_shape: Ints, **how: Any) -> Tensor:
    """A^+ z: the mean of a pixel's copies; 0 where no window reads it."""
    copies = unfold_transpose(torch.ones_like(z), input_shape, **how)
    return unfold_transpose(z, input_shape, **how) / copies.clamp(min=1)


def unfold_labels(labels: Labels) -> Labels:
    """Windows in order, a place in one as a part of the channels."""
    return (labels[0], labels[1], TOKENS)


def _unfold(
    input: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Arguments:
    sizes = {"kernel_size": kernel_size, "dilation": dilation, "padding": padding, "stride": stride}
    return {"input": input} | {name: tuple_of(size, 2) for name, size in sizes.items()}


UNFOLD = Rule(
    "unfold",
    **roles(unfold, unfold_transpose, unfold_inverse, unfold_labels),
    equation="least squares, exact",
    targets={F.unfold: _unfold, torch.ops.aten.im2col.default: _unfold},
    modules={nn.Unfold: from_module(_unfold)},
)
