"""Smooth elementwise functions: captured, the tangent, y = t v + (f(x) - t x)."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules._spellings import called, from_module, spellings
from naflow_fx.rules.contract import Arguments, Function, Rule, roles, same


def linear(v: Tensor, tangent: Tensor) -> Tensor:
    """A v = f'(x) v, and so is A^T v."""
    return v * tangent


def shift(input: Tensor, output: Tensor, tangent: Tensor) -> Tensor:
    """c = f(x) - f'(x) x."""
    return output - tangent * input


def clip(z: Tensor, output: Tensor) -> Tensor:
    """z within what the sample's captured output [N, ...] spans, where the inverse is defined."""
    dims = tuple(range(1, output.dim()))
    low, high = output.amin(dims, keepdim=True), output.amax(dims, keepdim=True)
    return torch.minimum(torch.maximum(z, low.to(z.dtype)), high.to(z.dtype))


def tangent(
    name: str, forward: Function, slope: Function, inverse: Function, *modules: type, **others: Any
) -> Rule:
    """The rule of y = f(x): ``slope`` is f'(x), ``inverse`` the inverse function, z clipped."""
    fields = called(forward, name, *modules) | others
    fields |= {"inverse": inverse, "capture": slope, "captures": ("tangent",)}
    fields |= {"function_inverse": True, "equation": "inverse function"}
    return Rule(name, **roles(forward, linear, shift), **fields)


def clamp(input: Tensor, min_val: float | None, max_val: float | None) -> Tensor:
    """min(max(x, min_val), max_val), elementwise; None: no bound.  See `rectifiers.hardtanh`."""
    return torch.clamp(input, min_val, max_val)


def clamp_slope(input: Tensor, output: Tensor) -> Tensor:
    """f'(x) = 1 where x was within, else 0."""
    return (input == output).to(input.dtype)


CLAMP = tangent("clamp", clamp, clamp_slope, clip, targets={})


def elu(input: Tensor, alpha: float = 1.0, scale: float = 1.0, width: float = 1.0) -> Tensor:
    """ELU, SELU, CELU: scale x where x > 0, else scale alpha (exp(x / width) - 1)."""
    below = scale * alpha * torch.expm1(input.clamp(max=0) / width)
    return torch.where(input > 0, scale * input, below)


def elu_slope(input: Tensor, alpha: float, scale: float, width: float) -> Tensor:
    """f'(x)."""
    below = scale * alpha / width * torch.exp(input.clamp(max=0) / width)
    return torch.where(input > 0, torch.full_like(input, scale), below)


def elu_inverse(z: Tensor, output: Tensor, alpha: float, scale: float, width: float) -> Tensor:
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


def adapt_celu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Arguments:
    """celu's arguments."""
    return {"input": input, "alpha": alpha, "width": alpha}


_SELU = {"alpha": 1.6732632423543772848170429916717, "scale": 1.0507009873554804934193349852946}
_selu = same(elu, "inplace", width=1.0, **_SELU)
ELU = tangent(
    "elu",
    elu,
    elu_slope,
    elu_inverse,
    targets=spellings(adapt_elu, "elu", in_place=True)
    | spellings(_selu, "selu", in_place=True)
    | spellings(adapt_celu, "celu", in_place=True),
    modules={
        nn.ELU: from_module(adapt_elu),
        nn.SELU: from_module(_selu),
        nn.CELU: from_module(adapt_celu),
    },
)


def exp(input: Tensor) -> Tensor:
    """The exponential function of x, elementwise."""
    return torch.exp(input)


def exp_slope(output: Tensor) -> Tensor:
    """f'(x) = y."""
    return output.clone()


def exp_inverse(z: Tensor, output: Tensor) -> Tensor:
    """log(z), with z clipped into what the sample's captured output spans."""
    return torch.log(clip(z, output).clamp(min=torch.finfo(z.dtype).tiny))


EXP = tangent("exp", exp, exp_slope, exp_inverse)


def hardsigmoid(input: Tensor) -> Tensor:
    """x / 6 + 1 / 2, within [0, 1]; not F.hardsigmoid, whose derivative rounds 1 / 6."""
    return F.relu6(input + 3) / 6


def hardsigmoid_slope(input: Tensor) -> Tensor:
    """f'(x) = 1 / 6 between -3 and 3, else 0."""
    return ((input > -3) & (input < 3)).to(input.dtype) / 6


def hardsigmoid_inverse(z: Tensor, output: Tensor) -> Tensor:
    """6 z - 3, with z clipped into what the sample's captured output spans."""
    return 6 * clip(z, output) - 3


HARDSIGMOID = tangent(
    "hardsigmoid",
    hardsigmoid,
    hardsigmoid_slope,
    hardsigmoid_inverse,
    nn.Hardsigmoid,
    gating="squashes",
)


def log(input: Tensor) -> Tensor:
    """The natural logarithm of x, elementwise."""
    return torch.log(input)


def log_slope(input: Tensor) -> Tensor:
    """f'(x) = 1 / x."""
    return torch.reciprocal(input)


def log_inverse(z: Tensor, output: Tensor) -> Tensor:
    """exp(z), with z clipped into what the sample's captured output spans."""
    return torch.exp(clip(z, output))


LOG = tangent("log", log, log_slope, log_inverse)

Number = float | Tensor


def power(input: Tensor, exponent: Number, factor: Number = 1.0) -> Tensor:
    """factor x^p, elementwise, with a constant p: square root, square, reciprocal."""
    power = torch.pow(input, exponent)
    return power if isinstance(factor, float) and factor == 1 else factor * power


def power_slope(input: Tensor, exponent: Number, factor: Number) -> Tensor:
    """f'(x) = factor p x^(p - 1); 0 where that is infinite (a root at 0)."""
    tangent = factor * exponent * torch.pow(input, exponent - 1)
    return torch.where(tangent.isinf(), 0.0, tangent)


def power_inverse(
    z: Tensor, input: Tensor, output: Tensor, exponent: Number, factor: Number
) -> Tensor:
    """(z / factor)^(1 / p) with the sign of the captured x; z clipped into the output's span."""
    size = torch.pow((clip(z, output) / factor).abs(), 1 / exponent)
    if not isinstance(exponent, Tensor) and exponent % 2 == 1:  # odd: z tells the sign
        return size.nan_to_num(posinf=0.0) * torch.sign(clip(z, output) / factor)
    return torch.where(input < 0, -size, size)


POW = tangent(
    "pow",
    power,
    power_slope,
    power_inverse,
    targets={
        **spellings(same(power), operator.pow, "pow.Tensor_Scalar", "pow.Tensor_Tensor"),
        **spellings(same(power), "pow_.Scalar", "pow_.Tensor"),
        **spellings(same(power, exponent=0.5), "sqrt", in_place=True),
        **spellings(same(power, exponent=-0.5), "rsqrt", in_place=True),
        **spellings(same(power, exponent=2), "square", in_place=True),
        **spellings(same(power, exponent=-1), "reciprocal", in_place=True),
    },
)


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + exp(-x)), elementwise."""
    return torch.sigmoid(input)


def sigmoid_slope(output: Tensor) -> Tensor:
    """f'(x) = y (1 - y)."""
    return output * (1 - output)


def sigmoid_inverse(z: Tensor, output: Tensor) -> Tensor:
    """logit(z), with z clipped into what the sample's captured output spans."""
    return torch.logit(clip(z, output), eps=torch.finfo(z.dtype).eps)


SIGMOID = tangent("sigmoid", sigmoid, sigmoid_slope, sigmoid_inverse, nn.Sigmoid, gating="squashes")


def softplus(
    input: Tensor, beta: float = 1.0, threshold: float = 20.0, sign: float = 1.0
) -> Tensor:
    """s log(1 + exp(s b x)) / b, elementwise; linear where s b x > `threshold`.

    The sign s is 1, or -1 for log-sigmoid.
    """
    return sign * F.softplus(sign * input, beta, threshold)


def softplus_slope(input: Tensor, beta: float, threshold: float, sign: float) -> Tensor:
    """f'(x) = sigmoid(s b x), 1 beyond the threshold."""
    x = sign * beta * input
    return torch.where(x > threshold, 1.0, torch.sigmoid(x))


def softplus_inverse(
    z: Tensor, output: Tensor, beta: float, threshold: float, sign: float
) -> Tensor:
    """The inverse function, with z clipped into what the sample's captured output spans."""
    y = (sign * beta * clip(z, output)).clamp(min=torch.finfo(z.dtype).tiny)
    x = torch.where(y > threshold, y, y + torch.log(-torch.expm1(-y)))
    return sign * x / beta


_log_sigmoid = same(softplus, beta=1.0, threshold=100.0, sign=-1.0)
SOFTPLUS = tangent(
    "softplus",
    softplus,
    softplus_slope,
    softplus_inverse,
    targets=spellings(same(softplus), "softplus")
    | spellings(_log_sigmoid, "logsigmoid", "log_sigmoid"),
    modules={nn.Softplus: from_module(same(softplus)), nn.LogSigmoid: from_module(_log_sigmoid)},
)


def tanh(input: Tensor) -> Tensor:
    """The hyperbolic tangent of x, elementwise."""
    return torch.tanh(input)


def tanh_slope(output: Tensor) -> Tensor:
    """f'(x) = 1 - y^2."""
    return 1 - output * output


def tanh_inverse(z: Tensor, output: Tensor) -> Tensor:
    """artanh(z), with z clipped into what the sample's captured output spans."""
    bound = 1 - torch.finfo(z.dtype).eps
    return torch.atanh(clip(z, output).clamp(-bound, bound))


TANH = tangent("tanh", tanh, tanh_slope, tanh_inverse, nn.Tanh, gating="squashes")
