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
    spatial_ahead = _spatial_ahead(nodes, main)
    features = [n for n in nodes if n in main and is_spatial(n)
                and (n is score or _leaves_space(n, main, spatial_ahead))]  # fmt: skip
    cascade = before(features, invertible=True)
    return Flow(
        sites=tuple(n.name for n in nodes if n in reached and _is_site(n)),
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
    found: set[fx.Node] = set()
    todo = list(ends)
    while todo:
        node = todo.pop()
        if node not in found:
            found.add(node)
            todo += _graph.operands(node, invertible)
    return found


def _spatial_ahead(nodes: list[fx.Node], main: set[fx.Node]) -> set[fx.Node]:
    """Nodes that are spatial, or lead to a spatial node along the main path."""
    found: set[fx.Node] = set()
    for node in reversed(nodes):
        if node in main and (is_spatial(node) or any(u in found for u in _users(node, main))):
            found.add(node)
    return found


def _leaves_space(node: fx.Node, main: set[fx.Node], spatial_ahead: set[fx.Node]) -> bool:
    return any(user not in spatial_ahead for user in _users(node, main))


def _users(node: fx.Node, main: set[fx.Node]) -> list[fx.Node]:
    """Main nodes that the cascade enters `node` from."""
    return [u for u in node.users if u in main and node in _graph.operands(u, invertible=True)]


def _is_site(node: fx.Node) -> bool:
    return keys.LABELS in node.meta and is_site_shaped(node.meta[keys.LABELS])
