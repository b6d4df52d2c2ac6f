"""find_flow: call sites, control branches, and where the cascade starts."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from naflow_fx import keys
from naflow_fx.passes import _graph
from naflow_fx.passes._graph import is_site_shaped, is_spatial


@dataclass(frozen=True)
class Flow:
    """Who takes part in the cascade; nodes by name.

    Attributes:
        sites: call sites in forward order: batch, channel and space tracked, score reachable.
        features: the last spatial node of every path that is not a control branch's.
        cascade: nodes that the inverse runs through, from the inputs to the features.
        inputs: the cascade's entries.
    """

    sites: tuple[str, ...]
    features: tuple[str, ...]
    cascade: frozenset[str]
    inputs: tuple[str, ...]

    def is_control(self, name: str) -> bool:
        """Whether a site belongs to a control branch: captured, not inverted."""
        return name not in self.cascade


def find_flow(graph: fx.Graph) -> Flow:
    """The cascade of a labelled canonical graph (docs/method.md 1, "Feature node")."""
    score = score_of(graph)
    main = before([score], invertible=True)
    reached = before([score], invertible=False)
    nodes = list(graph.nodes)
    entered = {n: [user for user in n.users if user in main
                   and n in _graph.operands(user, invertible=True)] for n in main}  # fmt: skip
    ahead: set[fx.Node] = set()  # spatial, or leading to a spatial node along the main path
    for node in reversed(nodes):
        if node in main and (is_spatial(node) or any(user in ahead for user in entered[node])):
            ahead.add(node)
    features = [n for n in nodes if n in main and is_spatial(n)
                and (n is score or any(user not in ahead for user in entered[n]))]  # fmt: skip
    sites = [n for n in nodes if n in reached and is_site_shaped(n.meta.get(keys.LABELS, ()))]
    cascade = before(features, invertible=True)
    return Flow(
        sites=tuple(n.name for n in sites),
        features=tuple(n.name for n in features),
        cascade=frozenset(n.name for n in cascade),
        inputs=tuple(n.name for n in nodes if n in cascade and n.op == "placeholder"),
    )


def score_of(graph: fx.Graph) -> fx.Node:
    """The node of the score."""
    result = _graph.output_node(graph).args[0]
    assert isinstance(result, dict)
    score = result["score"]
    assert isinstance(score, fx.Node)
    return score


def target_of(graph: fx.Graph) -> fx.Node | None:
    """The node of the explained classes; None where a callable is explained."""
    index = score_of(graph).meta.get(keys.CAPTURES, {}).get("index")
    return _graph.names(graph)[index] if index else None


def sites_of(graph: fx.Graph) -> dict[str, fx.Node]:
    """The call sites by name, in forward order."""
    names = _graph.names(graph)
    return {names[name].meta[keys.SITE]: names[name] for name in find_flow(graph).sites}


def before(ends: list[fx.Node], invertible: bool) -> set[fx.Node]:
    """The ends, and what they were computed from along active operands."""
    return _graph.reached(ends, lambda node: _graph.operands(node, invertible))
