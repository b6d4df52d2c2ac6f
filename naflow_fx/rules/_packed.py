"""Weights of two-dimensional convolutions in oneDNN's own layout, as a CPU multiplies by them.

The operators are those that Inductor calls for frozen models.  Such a weight is opaque: it is in no
graph that is exported and in no file.  It is made once, and kept as long as the tensor it is of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

_kept: Any = WeakIdKeyDictionary()  # tensor -> (its version, {how: packed})
_KINDS = (torch.float32, torch.bfloat16)


def packs(weight: Tensor) -> bool:
    """Whether oneDNN would reorder a weight [out, in / groups, k, k] before it multiplies."""
    if weight.device.type != "cpu" or weight.dtype not in _KINDS or weight.dim() != 4:
        return False
    onednn: Any = torch.backends.mkldnn
    if not (onednn.is_available() and onednn.enabled):
        return False
    return weight.dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def pack(
    weight: Tensor,
    padding: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    transposed: bool = False,
) -> Tensor:
    """The weight of an ungrouped convolution, for `packed_conv`; of a transposed one, for that.

    The weight itself where `packs` says no.
    """
    if not packs(weight):
        return weight
    owner = weight if weight._base is None else weight._base
    version = 0 if owner.is_inference() else owner._version
    if owner not in _kept or _kept[owner][0] != version:
        _kept[owner] = version, {}
    made: dict[tuple[Any, ...], Tensor] = _kept[owner][1]
    where = (weight.data_ptr(), weight.dtype, *weight.shape, *weight.stride())
    how = (transposed, *padding, *stride, *dilation, *where)
    if how not in made:
        mkldnn, none = torch.ops.mkldnn, [0] * len(stride)
        made[how] = (
            mkldnn._reorder_convolution_transpose_weight(weight, padding, none, stride, dilation, 1)
            if transposed
            else mkldnn._reorder_convolution_weight(weight, padding, stride, dilation, 1)
        )
    return made[how]


def packed_conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """torch.conv2d with a weight that `pack` gave."""
    if not weight.is_mkldnn:
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    multiply = torch.ops.mkldnn._convolution_pointwise
    y: Tensor = multiply(input, weight, bias, padding, stride, dilation, groups, "none", [], "")
    return y


def packed_conv_transpose(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    groups: int,
    dilation: Sequence[int],
) -> Tensor:
    """torch.conv_transpose2d with a weight that `pack` gave, transposed."""
    where = (stride, padding, output_padding, groups, dilation)
    if not weight.is_mkldnn:
        return torch.conv_transpose2d(input, weight, bias, *where)
    multiply = torch.ops.mkldnn._convolution_transpose_pointwise
    how: Any = (padding, output_padding, stride, dilation, groups, "none", [], "")
    y: Tensor = multiply(input, weight, bias, *how)
    return y
