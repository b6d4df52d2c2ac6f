"""ELU, SELU and CELU: y = a x where x > 0, else a b (exp(x / k) - 1); captured, the tangent."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from naflow_fx.rules._spellings import from_module, spellings
from naflow_fx.rules._tangent import clip, tangent
from naflow_fx.rules.contract import Arguments

SELU = (1.0507009873554804934193349852946, 1.6732632423543772848170429916717)


def forward(input: Tensor, alpha: float = 1.0, scale: float = 1.0, width: float = 1.0) -> Tensor:
    """scale x where x > 0, else scale alpha (exp(x / width) - 1)."""
    below = scale * alpha * torch.expm1(input.clamp(max=0) / width)
    return torch.where(input > 0, scale * input, below)


def slope(input: Tensor, alpha: float, scale: float, width: float) -> Tensor:
    """f'(x)."""
    below = scale * alpha / width * torch.exp(input.clamp(max=0) / width)
    return torch.where(input > 0, torch.full_like(input, scale), below)


def inverse(z: Tensor, output: Tensor, alpha: float, scale: float, width: float) -> Tensor:
    """The inverse function, with z clipped into what the sample's captured output spans."""
    z = clip(z, output) / scale
    tiny = torch.finfo(z.dtype).eps
    inner = (z.clamp(max=0) / alpha).clamp(min=tiny - 1) if alpha else torch.zeros_like(z)
    return torch.where(z > 0, z, width * torch.log1p(inner))


def adapt_elu(
    input: Any, alpha: float = 1.0, scale: Any = 1.0, input_scale: float = 1.0, *,
    inplace: bool = False,
) -> Arguments:  # fmt: skip
    """aten.elu's arguments; F.elu's third one is `inplace`."""
    scale = 1.0 if isinstance(scale, bool) else scale
    return {"input": input, "alpha": alpha, "scale": scale, "width": 1 / input_scale}


def adapt_selu(input: Any, inplace: bool = False) -> Arguments:
    """selu's arguments."""
    return {"input": input, "scale": SELU[0], "alpha": SELU[1]}


def adapt_celu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Arguments:
    """celu's arguments."""
    return {"input": input, "alpha": alpha, "width": alpha}


RULE = tangent(
    "elu",
    forward,
    slope,
    inverse,
    targets=spellings(adapt_elu, "elu", in_place=True)
    | spellings(adapt_selu, "selu", in_place=True)
    | spellings(adapt_celu, "celu", in_place=True),
    modules={
        nn.ELU: from_module(adapt_elu, "alpha"),
        nn.SELU: from_module(adapt_selu),
        nn.CELU: from_module(adapt_celu, "alpha"),
    },
)
