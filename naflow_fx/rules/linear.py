"""Fully connected layer on the last dimension: y = W x + b."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules._shapes import has_bias
from naflow_fx.rules._spellings import from_module, spellings
from naflow_fx.rules.contract import Labels, Rule, same


def forward(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., in] times `weight` [out, in], plus `bias` [out]."""
    return F.linear(input, weight, bias)


def linear(v: Tensor, weight: Tensor) -> Tensor:
    """A v = W v, in the weight's dtype."""
    return F.linear(v.to(weight.dtype), weight).to(v.dtype)


def transpose(w: Tensor, weight: Tensor) -> Tensor:
    """A^T w = W^T w, in the weight's dtype."""
    return F.linear(w.to(weight.dtype), weight.T).to(w.dtype)


def shift(bias: Tensor | None) -> Tensor | None:
    """c = b, [out]."""
    return bias


def labels(labels: Labels) -> Labels:
    """The last dimension is a channel again when what was mixed into it was flattened."""
    return (*labels[:-1], "C" if labels[-1] == "?" else labels[-1])


RULE = Rule(
    "linear",
    forward,
    linear,
    transpose,
    shift=shift,
    has_shift=has_bias,
    kernel="weight",
    labels=labels,
    equation="Eqs. 6-10, damped least squares",
    targets=spellings(same(forward), "linear"),
    modules={nn.Linear: from_module(same(forward), "weight", "bias")},
)
