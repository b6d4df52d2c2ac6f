"""Hard tanh on [0, b] (ReLU6): y = g x with the secant gate g = y / x where x > 0, else 0."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules import clamp
from naflow_fx.rules._gate import quotient
from naflow_fx.rules.contract import Arguments, Rule, bind


def forward(input: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """min(max(x, min_val), max_val), elementwise."""
    return F.hardtanh(input, min_val, max_val)


def capture(input: Tensor, output: Tensor) -> Tensor:
    """g = y / x where x > 0, else 0, so that y = g x holds for saturated neurons too."""
    return output / input.clamp(min=torch.finfo(input.dtype).tiny)


def linear(v: Tensor, gate: Tensor) -> Tensor:
    """A v = g v."""
    return v * gate


def transpose(w: Tensor, gate: Tensor) -> Tensor:
    """A^T w = g w."""
    return w * gate


def inverse(z: Tensor, gate: Tensor) -> Tensor:
    """z / g where x > 0, 0 elsewhere (Eq. 12 with the secant gate)."""
    return quotient(z, gate)


def vjp(w: Tensor, input: Tensor, max_val: float) -> Tensor:
    """w where 0 < x < b: the true derivative."""
    slope: Tensor = torch.ops.aten.hardtanh_backward(w, input, 0, max_val)
    return slope


def adapt(*args: Any, **kwargs: Any) -> Any:
    """hardtanh's or clamp's arguments."""
    kwargs.pop("inplace", None)
    return _choose(bind(forward, *args, **kwargs))


def adapt_clamp(input: Any, min: Any = None, max: Any = None) -> Any:
    """torch.clamp's arguments."""
    return _choose({"input": input, "min_val": min, "max_val": max})


def adapt_clamp_max(input: Any, max: Any) -> Any:
    """torch.clamp_max's arguments."""
    return adapt_clamp(input, None, max)


def adapt_relu6(input: Any, inplace: bool = False) -> Arguments:
    """relu6's arguments."""
    return {"input": input, "min_val": 0.0, "max_val": 6.0}


def from_module(module: Any) -> Any:
    """The arguments of an nn.Hardtanh or nn.ReLU6."""
    return _choose({"min_val": module.min_val, "max_val": module.max_val})


def _choose(found: Arguments) -> Any:
    """[0, b] is this rule's; any other bounds are `clamp`'s."""
    low, high = found["min_val"], found["max_val"]
    if any(not isinstance(x, (int, float, type(None))) for x in (low, high)):
        raise ValueError("clamp with bounds that are tensors")
    positive = low == 0 and high is not None and high > 0
    return found if positive else (clamp.forward, found)


_aten = torch.ops.aten
RULE = Rule(
    "hardtanh",
    forward,
    linear,
    transpose,
    inverse,
    capture=capture,
    captures=("gate",),
    vjp=vjp,
    gating="squashes",
    equation="Eq. 12, secant gate",
    targets={
        F.hardtanh: adapt, F.relu6: adapt_relu6, torch.clamp: adapt_clamp, "clamp": adapt_clamp,
        _aten.hardtanh.default: adapt, _aten.hardtanh_.default: adapt,
        _aten.relu6.default: adapt_relu6, _aten.relu6_.default: adapt_relu6,
        _aten.clamp.default: adapt_clamp, _aten.clamp_.default: adapt_clamp,
        "clamp_": adapt_clamp, torch.clip: adapt_clamp, "clip": adapt_clamp,
        **dict.fromkeys((torch.clamp_min, "clamp_min", "clamp_min_", _aten.clamp_min.default),
                        adapt_clamp),
        **dict.fromkeys((torch.clamp_max, "clamp_max", "clamp_max_", _aten.clamp_max.default),
                        adapt_clamp_max),
    },
    modules={nn.Hardtanh: from_module, nn.ReLU6: from_module},
)  # fmt: skip
