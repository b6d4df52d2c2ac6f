"""Operators that are a few others: y = f(x) written out in operators that have a rule.

No `Rule` here: the compiler replaces such a call by what its function does, before anything else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules._shapes import tuple_of
from naflow_fx.rules._spellings import by_rank, spellings


def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    """x + value a b."""
    product = tensor1 * tensor2
    return input + (product if value == 1 else value * product)


def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    """x + value a / b."""
    quotient = tensor1 / tensor2
    return input + (quotient if value == 1 else value * quotient)


def lerp(input: Tensor, end: Tensor, weight: Tensor | float) -> Tensor:
    """x + weight (end - x)."""
    return input + weight * (end - input)


def softsign(input: Tensor) -> Tensor:
    """x / (1 + |x|)."""
    return input / (1 + torch.abs(input))


def tanhshrink(input: Tensor) -> Tensor:
    """x - tanh(x)."""
    return input - torch.tanh(input)


def softmin(input: Tensor, dim: int, *rest: Any, **options: Any) -> Tensor:
    """softmax(-x)."""
    return torch.softmax(-input, dim)


def baddbmm(
    input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    """beta x + alpha a b."""
    return beta * input + alpha * torch.matmul(batch1, batch2)


def attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, *, scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """softmax(q k^T scale + mask) v, as in eval mode."""
    if is_causal or enable_gqa:
        raise ValueError("scaled_dot_product_attention with is_causal or enable_gqa")
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    scores = torch.matmul(query * factor, key.transpose(-2, -1))
    if attn_mask is not None:
        scores = scores + attn_mask
    return torch.matmul(torch.softmax(scores, -1), value)


def lp_pool(rank: int) -> Callable[..., Tensor]:
    """The function of torch's lp_poolNd: (sum over the window of x^p)^(1 / p)."""
    pool = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[rank]

    def composed(
        input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None,
        ceil_mode: bool = False,
    ) -> Tensor:  # fmt: skip
        count = math.prod(tuple_of(kernel_size, rank))
        mean = pool(torch.pow(input, norm_type), kernel_size, stride, 0, ceil_mode)
        # torch keeps the sign of the sum, takes its absolute value, and drops negative ones
        return torch.pow(torch.relu(mean) * count, 1.0 / norm_type)

    return composed


COMPOSITES: dict[Any, Callable[..., Tensor]] = {
    **spellings(addcmul, "addcmul"),
    **spellings(addcdiv, "addcdiv"),
    **spellings(lerp, "lerp.Scalar", "lerp.Tensor"),
    **spellings(baddbmm, "baddbmm"),
    **spellings(attention, "scaled_dot_product_attention"),
    **spellings(softsign, "softsign"),
    **spellings(tanhshrink, "tanhshrink"),
    **spellings(softmin, "softmin"),
    **by_rank(lp_pool, "lp_pool{}d"),
}
"""Traced function, or method name -> the function that does the same."""

COMPOSITE_MODULES: dict[type, Callable[..., Tensor]] = {
    nn.Softsign: softsign,
    nn.Tanhshrink: tanhshrink,
    nn.Softmin: softmin,
    **{getattr(nn, f"LPPool{rank}d"): lp_pool(rank) for rank in (1, 2, 3)},
}
"""Module class -> that function; what it takes, the module has under the same names."""
