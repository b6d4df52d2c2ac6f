"""fix_masks: an index by a constant mask is an index by the places where it holds."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx

from naflow_fx.passes import _graph, _module


def fix_masks(gm: fx.GraphModule) -> fx.GraphModule:
    """``x[:, :, mask]`` with a mask that the model holds reads the places where it holds.

    Before: a traced graph.  After: the same values; how many there are is known without numbers.
    Left alone: masks that are computed.
    """
    new = _module.copy(gm)
    for node in new.graph.nodes:
        if node.target is operator.getitem:
            index = node.args[1]
            items = index if isinstance(index, tuple) else (index,)
            found = [place for item in items for place in _places(new, item)]
            node.args = (node.args[0], tuple(found) if isinstance(index, tuple) or len(found) > 1
                         else found[0])  # fmt: skip
    return new


def _places(gm: fx.GraphModule, item: Any) -> list[Any]:
    """The indices of a mask, one list per dimension; another item is itself."""
    known = isinstance(item, fx.Node) and item.op == "get_attr"
    mask = _graph.attribute(gm, str(item.target)) if known else None
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        return [item]
    return [places.tolist() for places in mask.nonzero(as_tuple=True)]
