"""join_features: several feature nodes end in one virtual concatenation."""

from __future__ import annotations

import math

import torch
from torch import fx

from naflow_fx import keys
from naflow_fx.passes import _graph
from naflow_fx.passes.find_flow import find_flow
from naflow_fx.rules import flat_cat

JOINED = "features"


def join_features(gm: fx.GraphModule) -> fx.GraphModule:
    """Adds a `flat_cat` of the feature nodes where there are several.

    Before: a labelled canonical graph.  After: a fork that features share is the entry of a
    region that ends in their concatenation (METHOD section 1).  Left alone: one feature node.
    """
    new = _graph.copy(gm)
    flow = find_flow(new.graph)
    if len(flow.features) < 2:
        return new
    by_name = _graph.names(new.graph)
    features = [by_name[name] for name in flow.features]
    with new.graph.inserting_before(_graph.output_node(new.graph)):
        node = new.graph.create_node(
            "call_function", flat_cat.forward, (), {"inputs": features}, name=JOINED
        )
    total = sum(math.prod(f.meta[keys.SHAPE][1:]) for f in features)
    node.meta |= {keys.RULE: "flat_cat", keys.ACTIVE: True, keys.SHAPE: (-1, total),
                  keys.DTYPE: features[0].meta.get(keys.DTYPE, torch.float32)}  # fmt: skip
    new.meta[JOINED] = node.name
    return new


def cascade_end(gm: fx.GraphModule) -> str:
    """The node where the cascade starts: the feature node, or the concatenation of several."""
    joined: str | None = gm.meta.get(JOINED)
    return joined or find_flow(gm.graph).features[0]
