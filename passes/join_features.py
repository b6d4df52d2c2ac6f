"""join_features: feature nodes that share a fork end in one virtual concatenation."""

from __future__ import annotations

import math

import networkx as nx
from torch import fx

from naflow_fx import keys
from naflow_fx.passes import _graph, _module
from naflow_fx.passes.find_flow import Flow, find_flow
from naflow_fx.rules import cat

ENDS = "naflow_ends"  # key of GraphModule.meta: names of the nodes where the cascade starts


def join_features(gm: fx.GraphModule) -> fx.GraphModule:
    """Adds a `flat_cat` of feature nodes that were computed from a common node.

    Before: a labelled canonical graph.  After: a fork that features share is the entry of a
    region that ends in their concatenation (docs/method.md 1).  Left alone: a feature node of
    its own, such as each tower of a siamese network.
    """
    new = _module.copy(gm)
    groups = _groups(find_flow(new.graph))
    ends = [group[0] if len(group) == 1 else _join(new.graph, group) for group in groups]
    new.meta[ENDS] = tuple(node.name for node in ends)
    return new


def cascade_ends(gm: fx.GraphModule) -> list[fx.Node]:
    """The nodes where the cascade starts: feature nodes, or concatenations of them."""
    names = _graph.names(gm.graph)
    return [names[name] for name in gm.meta[ENDS]]


def _groups(flow: Flow) -> list[list[fx.Node]]:
    """Feature nodes by connected component of the cascade, in forward order."""
    cascade = nx.Graph()
    cascade.add_edges_from((x, node) for node in flow.cascade for x in _graph.sources(node))
    cascade.add_nodes_from(flow.features)
    groups = [[f for f in flow.features if f in part] for part in nx.connected_components(cascade)]
    return sorted(groups)


def _join(graph: fx.Graph, features: list[fx.Node]) -> fx.Node:
    with graph.inserting_before(graph.output_node()):
        node = graph.create_node(
            "call_function", cat.flat, (), {"inputs": features}, name="features"
        )
    total = sum(math.prod(f.meta[keys.SHAPE][1:]) for f in features)
    node.meta |= {
        keys.RULE: cat.FLAT.name,
        keys.ACTIVE: True,
        keys.SHAPE: (-1, total),
        keys.DTYPE: features[0].meta[keys.DTYPE],
    }
    return node
