"""Tensors of one number that take only their shape from an activation: zeros_like, new_full."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

_FILLS = {"zeros_like": 0, "ones_like": 1, "new_zeros": 0, "new_ones": 1}


def filling(node: fx.Node, args: Any, kwargs: Any) -> float | None:
    """The number that a call fills a new tensor with, whatever its first argument holds."""
    target = node.target
    name = target if isinstance(target, str) else getattr(target, "__name__", "").split(".")[0]
    if name in ("full_like", "new_full", "new_tensor"):
        at = 2 if name == "new_full" else 1
        found = kwargs.get("fill_value", args[at] if len(args) > at else None)
        return found if isinstance(found, (int, float)) else None
    return _FILLS.get(name)


def filled(gm: fx.GraphModule, value: Any, fill: float) -> Tensor:
    """That number in a `TensorValue`'s shape, where the model's tensors are, for a batch of one."""
    own = next((t for t in (*gm.parameters(), *gm.buffers())), torch.empty(()))
    shape = tuple(1 if size == -1 else size for size in value.shape)
    return torch.full(shape, fill, dtype=value.dtype, device=own.device)
