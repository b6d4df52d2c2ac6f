"""find_flow: call sites, control branches, and where the cascade starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import fx

from naflow_fx import keys
from naflow_fx.passes import _graph
from naflow_fx.passes._graph import is_site_shaped, is_spatial


@dataclass(frozen=True)
class Flow:
    """Who takes part in the cascade.

    Attributes:
        sites: call sites in forward order: batch, channel and space tracked, score reachable.
        features: the last spatial node of every path that is not a control branch's.
        cascade: nodes that the inverse runs through, from the inputs to the features; a site
            that is none of them belongs to a control branch: captured, not inverted.
        inputs: the cascade's entries.
    """

    sites: tuple[fx.Node, ...]
    features: tuple[fx.Node, ...]
    cascade: frozenset[fx.Node]
    inputs: tuple[fx.Node, ...]


def find_flow(graph: fx.Graph) -> Flow:
    """The cascade of a labelled canonical graph (docs/method.md 1, "Feature node")."""
    score = score_of(graph)
    main = _graph.reached([score], _graph.sources)
    reached = _graph.reached([score], _graph.operands)
    cascade = _graph.reached(filter(is_spatial, main), _graph.sources)
    beyond = main - cascade

    def ends(node: fx.Node) -> bool:
        """Whether no more space comes on one of the ways on."""
        onward = [user for user in node.users if user in beyond]
        return node is score or any(node in _graph.sources(user) for user in onward)

    sites = [n for n in graph.nodes if n in reached and is_site_shaped(n.meta.get(keys.LABELS, ()))]
    features = [n for n in graph.nodes if n in cascade and is_spatial(n) and ends(n)]
    inputs = [n for n in graph.find_nodes(op="placeholder") if n in cascade]
    return Flow(tuple(sites), tuple(features), frozenset(cascade), tuple(inputs))


def score_of(graph: fx.Graph) -> fx.Node:
    """The node of the score."""
    result: Any = graph.output_node().args[0]
    score: fx.Node = result["score"]
    return score


def target_of(graph: fx.Graph) -> fx.Node | None:
    """The node of the explained classes; None where a callable is explained."""
    index = score_of(graph).meta.get(keys.CAPTURES, {}).get("index")
    return _graph.names(graph)[index] if index else None


def sites_of(graph: fx.Graph) -> dict[str, fx.Node]:
    """The call sites by name, in forward order."""
    return {node.meta[keys.SITE]: node for node in find_flow(graph).sites}
