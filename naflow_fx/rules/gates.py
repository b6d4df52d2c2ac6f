"""Gates: y = g(x) x; captured, y = g x."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules._shapes import Ints, per_channel
from naflow_fx.rules._spellings import called, from_module, spellings
from naflow_fx.rules.contract import Arguments, Function, Rule, roles, same


def linear(v: Tensor, gate: Tensor) -> Tensor:
    """A v = g v, and so is A^T v."""
    return v * gate


def inverse(z: Tensor, gate: Tensor, damping: float) -> Tensor:
    """g z / (g^2 + damping max g^2), the maximum per sample [N, ...]; 0 where all gates are 0."""
    square = gate * gate
    dims = tuple(range(1 if gate.dim() == z.dim() else 0, gate.dim()))
    largest = square.amax(dims, keepdim=True) if dims else square
    bottom = square + damping * largest
    return z * quotient(gate, bottom)


def undone(z: Tensor, gate: Tensor) -> Tensor:
    """z / g, of a gate that is positive."""
    return z / gate


def quotient(top: Tensor, bottom: Tensor) -> Tensor:
    """top / bottom where that is positive, else 0; of the same shape.

    A division and a threshold: `torch.where` takes ten times as long on a CPU.
    """
    ratio = top / bottom.clamp(min=torch.finfo(bottom.dtype).tiny)
    found: Tensor = torch.ops.aten.threshold_backward(ratio, bottom, 0)
    return found


def diagonal(gate: Tensor) -> Tensor:
    """d = g."""
    return gate


def off(gate: Tensor) -> Tensor:
    """Where g = 0: there x was at most 0, for g is 0 for no positive x."""
    return gate == 0


def gate(name: str, forward: Function, factor: Function, *modules: type, **others: Any) -> Rule:
    """The rule of y = g(x) x: ``factor`` is g(x); a ``vjp`` counts its own derivative, if not 0."""
    fields = roles(forward, linear, inverse, diagonal) | called(forward, name, *modules)
    fields |= {"capture": factor, "captures": ("gate",), "equation": "gate, damped"} | others
    return Rule(name, **fields)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x Phi(x), elementwise, Phi the normal distribution function.

    `approximate` is "none" or "tanh".
    """
    return F.gelu(input, approximate=approximate)


def gelu_factor(input: Tensor, approximate: str) -> Tensor:
    """g = Phi(x), or (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2."""
    if approximate == "tanh":
        return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (input + 0.044715 * input**3)))
    return 0.5 * torch.erfc(-input / math.sqrt(2))


def gelu_vjp(w: Tensor, input: Tensor, approximate: str) -> Tensor:
    """w (g + x g'(x))."""
    slope: Tensor = torch.ops.aten.gelu_backward(w, input, approximate=approximate)
    return slope


GELU = gate("gelu", gelu, gelu_factor, nn.GELU, vjp=gelu_vjp)


def hardswish(input: Tensor) -> Tensor:
    """x min(max(x + 3, 0), 6) / 6, elementwise."""
    return F.hardswish(input)


def hardswish_factor(input: Tensor) -> Tensor:
    """g = min(max(x + 3, 0), 6) / 6."""
    return F.hardsigmoid(input)


def hardswish_vjp(w: Tensor, input: Tensor) -> Tensor:
    """w f'(x): 0 below -3, x / 3 + 1 / 2 between, 1 above 3."""
    slope: Tensor = torch.ops.aten.hardswish_backward(w, input)
    return slope


HARDSWISH = gate("hardswish", hardswish, hardswish_factor, nn.Hardswish, vjp=hardswish_vjp, off=off)


def leaky_relu(input: Tensor, negative_slope: float | Tensor = 0.01) -> Tensor:
    """x where x > 0, slope * x elsewhere; the slope a number, or [1] or [C] (PReLU).

    Its inverse is damped: alone, z / g (Eq. 13), a slope of 0.01 would multiply noise by 100.
    """
    if isinstance(negative_slope, Tensor):
        return F.prelu(input, negative_slope)
    return F.leaky_relu(input, negative_slope)


def leaky_relu_factor(input: Tensor, negative_slope: float | Tensor) -> Tensor:
    """g: 1 where x > 0, else the slope."""
    slope = negative_slope
    if isinstance(slope, Tensor):
        slope = per_channel(slope.to(input.dtype), input.dim())
    return torch.where(input > 0, torch.ones_like(input), slope)


def adapt_rrelu(
    input: Any, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False,
    inplace: bool = False,
) -> Arguments:  # fmt: skip
    """rrelu's arguments: in eval mode the slope is the middle one."""
    if training:
        raise ValueError("rrelu draws its slopes: pass training=self.training")
    return {"input": input, "negative_slope": (lower + upper) / 2}


_leaky = same(leaky_relu, "inplace")
LEAKY_RELU = gate(
    "leaky_relu",
    leaky_relu,
    leaky_relu_factor,
    equation="Eq. 13, damped",
    off=off,
    targets={
        **spellings(_leaky, "leaky_relu", in_place=True),
        **spellings(lambda input, weight: {"input": input, "negative_slope": weight}, "prelu"),
        **spellings(adapt_rrelu, "rrelu", in_place=True),
    },
    modules={
        nn.LeakyReLU: from_module(_leaky),
        nn.RReLU: from_module(adapt_rrelu),
        nn.PReLU: lambda module: {"negative_slope": module.weight},
    },
)


def local_response_norm(
    input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """x / (k + alpha mean_window x^2)^beta, the window along the channels of [N, C, ...]."""
    return F.local_response_norm(input, size, alpha, beta, k)


def local_response_norm_factor(
    input: Tensor, size: int, alpha: float, beta: float, k: float
) -> Tensor:
    """g = (k + alpha mean_window x^2)^-beta, of the input's shape."""
    return _base(input, size, alpha, k).pow(-beta)


def local_response_norm_vjp(
    w: Tensor, input: Tensor, gate: Tensor, size: int, alpha: float, beta: float, k: float
) -> Tensor:
    """A^T w through the scale, too."""
    inner = w * input * gate / _base(input, size, alpha, k)
    spread = _window_mean(inner, (size - 1) // 2, size // 2)
    return w * gate - 2 * alpha * beta * input * spread


def _base(x: Tensor, size: int, alpha: float, k: float) -> Tensor:
    return k + alpha * _window_mean(x * x, size // 2, (size - 1) // 2)


def _window_mean(x: Tensor, before: int, after: int) -> Tensor:
    """Sums over channels c - before .. c + after, divided by the window's size."""
    rows = x.flatten(2).mT if x.dim() > 2 else x.unsqueeze(1)  # [N, rest, C]
    mean = F.avg_pool1d(F.pad(rows, (before, after)), before + after + 1, 1)
    return mean.mT.reshape(x.shape)


LOCAL_RESPONSE_NORM = gate(
    "local_response_norm",
    local_response_norm,
    local_response_norm_factor,
    nn.LocalResponseNorm,
    vjp=local_response_norm_vjp,
    inverse=undone,
    equation="exact, the sample's scale",
)


def mish(input: Tensor) -> Tensor:
    """x tanh(softplus(x)), elementwise."""
    return F.mish(input)


def mish_factor(input: Tensor) -> Tensor:
    """g = tanh(softplus(x))."""
    return torch.tanh(F.softplus(input))


def mish_vjp(w: Tensor, input: Tensor, gate: Tensor) -> Tensor:
    """w (g + x (1 - g^2) sigmoid(x))."""
    return w * (gate + input * (1 - gate * gate) * torch.sigmoid(input))


MISH = gate("mish", mish, mish_factor, nn.Mish, vjp=mish_vjp)

Dims = int | Ints


def normalize(input: Tensor, p: float = 2.0, dim: Dims = 1, eps: float = 1e-12) -> Tensor:
    """x / max(||x||_p, eps), the norm along `dim`."""
    return F.normalize(input, p, dim, eps)  # type: ignore[arg-type]


def normalize_factor(input: Tensor, p: float, dim: Dims, eps: float) -> Tensor:
    """g = 1 / max(||x||_p, eps), of size 1 along `dim`."""
    norm: Tensor = torch.linalg.vector_norm(input, p, dim, keepdim=True)
    return 1 / norm.clamp(min=eps)


def normalize_vjp(
    w: Tensor, input: Tensor, gate: Tensor, p: float, dim: Dims, eps: float
) -> Tensor:
    """A^T w through the norm, too."""
    slope = torch.sign(input) * (input.abs() * gate).pow(p - 1)  # of the norm
    slope = torch.where(gate < 1 / eps, slope, 0.0)
    return w * gate - slope * (w * input).sum(dim, keepdim=True) * gate * gate


NORMALIZE = gate(
    "normalize",
    normalize,
    normalize_factor,
    vjp=normalize_vjp,
    inverse=undone,
    equation="exact, the sample's scale",
)


def silu(input: Tensor) -> Tensor:
    """x sigmoid(x), elementwise (Swish)."""
    return F.silu(input)


def silu_factor(input: Tensor) -> Tensor:
    """g = sigmoid(x)."""
    return torch.sigmoid(input)


def silu_vjp(w: Tensor, input: Tensor, gate: Tensor) -> Tensor:
    """w f'(x), f'(x) = g (1 + x (1 - g))."""
    return w * gate * (1 + input * (1 - gate))


SILU = gate("silu", silu, silu_factor, nn.SiLU, vjp=silu_vjp)
