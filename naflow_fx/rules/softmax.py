"""Softmax and log-softmax: captured, the tangent at x; as a gate, captured whole."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from naflow_fx.rules._spellings import from_module, spellings
from naflow_fx.rules.contract import Arguments, Rule, roles


def forward(input: Tensor, dim: int) -> Tensor:
    """exp(x) / sum exp(x) along `dim`."""
    return torch.softmax(input, dim)


def linear(v: Tensor, output: Tensor, dim: int) -> Tensor:
    """A v = p v - p sum(p v), p the output; A is symmetric."""
    return output * (v - (output * v).sum(dim, keepdim=True))


def support(w: Tensor, dim: int) -> Tensor:
    """P^T w: every output reads every input along `dim`."""
    return w.sum(dim, keepdim=True).expand_as(w)


def shift(input: Tensor, output: Tensor, dim: int) -> Tensor:
    """c = p - A x."""
    return output - linear(input, output, dim)


def log_forward(input: Tensor, dim: int) -> Tensor:
    """x - log sum exp(x) along `dim`."""
    return torch.log_softmax(input, dim)


def log_linear(v: Tensor, output: Tensor, dim: int) -> Tensor:
    """A v = v - sum(p v), p = exp(y)."""
    return v - (output.exp() * v).sum(dim, keepdim=True)


def log_transpose(w: Tensor, output: Tensor, dim: int) -> Tensor:
    """A^T w = w - p sum(w)."""
    return w - output.exp() * w.sum(dim, keepdim=True)


def log_shift(input: Tensor, output: Tensor, dim: int) -> Tensor:
    """c = y - A x."""
    return output - log_linear(input, output, dim)


def adapt(input: Any, dim: int | None = None, *rest: Any, **options: Any) -> Arguments:
    """softmax's arguments; `dtype` and `_stacklevel` have no say here."""
    if dim is None:
        raise ValueError("softmax without dim")
    if options.get("dtype") is not None or any(isinstance(x, torch.dtype) for x in rest):
        raise ValueError("softmax with a dtype")
    return {"input": input, "dim": dim}


RULE = Rule(
    "softmax",
    **roles(forward, linear, shift, support),
    gating="squashes",
    equation="tangent, damped least squares",
    targets=spellings(adapt, "softmax.int"),
    modules={
        nn.Softmax: from_module(adapt),
        nn.Softmax2d: lambda module: {"dim": -3},  # over the channels
    },
)
LOG = Rule(
    "log_softmax",
    **roles(log_forward, log_linear, log_transpose, log_shift, support),
    equation="tangent, damped least squares",
    targets=spellings(adapt, "log_softmax.int"),
    modules={nn.LogSoftmax: from_module(adapt)},
)
