"""pair_inputs: a program of one batch becomes one of queries and supports."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from naflow_fx.passes import _module
from naflow_fx.similarity import Similarity


def pair_inputs(gm: fx.GraphModule, target: Any) -> fx.GraphModule:
    """The input [N (1 + shots), ...] becomes ``query`` [N, ...] and ``support``.

    ``support`` is [N, ...], or [N, shots, ...] where there are several shots.  What the program
    returns per image keeps the one batch: the queries' rows, then the supports'.
    Left alone: a program of anything but a `Similarity`.
    """
    if not isinstance(target, Similarity):
        return gm
    new = _module.copy(gm)
    images = next(node for node in new.graph.nodes if node.op == "placeholder")
    with new.graph.inserting_before(images):
        query, support = (new.graph.placeholder(name) for name in ("query", "support"))
        rows = support
        if target.shots > 1:
            rows = new.graph.call_function(torch.flatten, (support, 0, 1))
        batch = new.graph.call_function(torch.cat, ([query, rows],))
    batch.meta = dict(images.meta)
    images.replace_all_uses_with(batch)
    new.graph.erase_node(images)
    return new
