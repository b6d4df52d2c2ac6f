"""ELU, SELU and CELU: y = a x where x > 0, else a b (exp(x / k) - 1); captured, the tangent."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules._tangent import clip, linear, shift, transpose
from naflow_fx.rules.contract import Arguments, Rule

SELU = (1.0507009873554804934193349852946, 1.6732632423543772848170429916717)


def forward(input: Tensor, alpha: float = 1.0, scale: float = 1.0, width: float = 1.0) -> Tensor:
    """scale x where x > 0, else scale alpha (exp(x / width) - 1)."""
    below = scale * alpha * torch.expm1(input.clamp(max=0) / width)
    return torch.where(input > 0, scale * input, below)


def capture(input: Tensor, alpha: float, scale: float, width: float) -> Tensor:
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


_aten = torch.ops.aten
RULE = Rule(
    "elu",
    forward,
    linear,
    transpose,
    inverse,
    capture=capture,
    captures=("tangent",),
    shift=shift,
    function_inverse=True,
    equation="inverse function",
    targets={
        F.elu: adapt_elu, F.elu_: adapt_elu, _aten.elu.default: adapt_elu,
        _aten.elu_.default: adapt_elu, F.selu: adapt_selu, F.selu_: adapt_selu,
        torch.selu: adapt_selu, torch.selu_: adapt_selu, _aten.selu.default: adapt_selu,
        _aten.selu_.default: adapt_selu, F.celu: adapt_celu, F.celu_: adapt_celu,
        torch.celu: adapt_celu, torch.celu_: adapt_celu, _aten.celu.default: adapt_celu,
        _aten.celu_.default: adapt_celu,
    },
    modules={
        nn.ELU: lambda module: {"alpha": module.alpha},
        nn.SELU: lambda module: {"scale": SELU[0], "alpha": SELU[1]},
        nn.CELU: lambda module: {"alpha": module.alpha, "width": module.alpha},
    },
)  # fmt: skip
