"""Where the time goes: the profiler's operators by kind."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import naflow_fx as nf

# The first kind with a word that is in the operator's name (aten, or a CUDA kernel's aten parent).
KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("convolutions", ("conv",)),
    ("matrix products", ("mm", "matmul", "linear", "dot", "einsum", "linalg_eig", "linalg_solve")),
    ("pooling", ("pool", "scatter", "gather", "index")),
    ("reductions", ("sum", "norm", "mean", "amax", "amin", "argmax", "max_dim", "prod")),
    ("copies", ("copy", "clone", "contiguous", "cat", "stack", "pad", "to_dense", "fill",
                "zero", "repeat", "roll", "flip")),
    ("elementwise", ("mul", "add", "sub", "div", "where", "relu", "clamp", "hardtanh", "gt", "lt",
                     "eq", "neg", "sqrt", "reciprocal", "maximum", "minimum", "bitwise", "abs",
                     "sigmoid", "pow", "batch_norm", "isinf", "ge", "le", "logical", "sign")),
)  # fmt: skip


def kind_of(operator: str) -> str:
    """The kind of an operator of the profiler's table."""
    name = operator.rpartition("::")[2]
    if name.endswith("batch_norm"):
        return "elementwise"
    return next((kind for kind, words in KINDS if any(w in name for w in words)), "the rest")


def breakdown(explainer: nf.Explainer, x: Tensor) -> dict[str, Any]:
    """Kind -> its share of the operators' own time, in one run."""
    cuda = x.device.type == "cuda"
    explainer(x)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as found:
        explainer(x)
        if cuda:
            torch.cuda.synchronize()
    time: dict[str, float] = defaultdict(float)
    for event in found.key_averages():
        if not event.key.startswith(("aten::", "mkldnn::")):
            continue
        took = event.self_device_time_total if cuda else event.self_cpu_time_total
        time[kind_of(event.key)] += took
    total = sum(time.values())
    return {
        kind: {"share": time[kind] / total}
        for kind in sorted(time, key=time.__getitem__, reverse=True)
    }
