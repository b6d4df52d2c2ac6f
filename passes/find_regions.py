"""find_regions: the single-entry single-exit parts of the cascade, by dominators."""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx
from torch import fx

from naflow_fx.passes import _graph

SOURCE = "<inputs>"


@dataclass(frozen=True)
class Region:
    """From a fork to the merge that all its paths reach; nodes by name.

    Attributes:
        entry, exit: the fork and the merge.
        nodes: what lies between, and the exit, in forward order.
        kind: "residual", "concatenation", ...: what its merge's rule calls it.
        series_parallel: whether every node inside belongs to one branch of the merge.
    """

    entry: str
    exit: str
    nodes: tuple[str, ...]
    kind: str
    series_parallel: bool


def find_regions(graph: fx.Graph, cascade: frozenset[str]) -> dict[str, Region]:
    """The region that ends at each merge of the cascade: from its immediate dominator on.

    A node with several invertible operands is a merge.  Its immediate dominator is where all
    ways to it fork.  Whether the region is single-exit is the caller's business: it meets merges
    on the way back from the end only.
    """
    members = [n for n in graph.nodes if n.name in cascade]
    flow = nx.DiGraph()
    flow.add_node(SOURCE)
    for node in members:
        parents = _graph.operands(node, invertible=True)
        flow.add_edges_from((parent.name, node.name) for parent in parents)
        if not parents:
            flow.add_edge(SOURCE, node.name)
    dominator = dict(nx.immediate_dominators(flow, SOURCE))
    merges = [n for n in members if len(_graph.operands(n, invertible=True)) > 1]
    order = [n.name for n in members]
    return {n.name: _region(flow, n, dominator[n.name], order) for n in merges}


def _region(flow: nx.DiGraph, merge: fx.Node, entry: str, order: list[str]) -> Region:
    inside = _between(flow, entry, merge.name)
    parents = [p.name for p in _graph.operands(merge, invertible=True)]
    branches = [_between(flow, entry, p) | ({p} - {entry}) for p in parents]
    repeated = sum(map(len, branches)) > len(set().union(*branches))
    rule = _graph.rule(merge)
    nodes = tuple(name for name in order if name in inside or name == merge.name)
    return Region(entry, merge.name, nodes, rule.merge or rule.name, not repeated)


def _between(flow: nx.DiGraph, entry: str, exit: str) -> set[str]:
    """Nodes on a path from entry to exit, without these two."""
    if entry == exit:
        return set()
    after = nx.descendants(flow, entry) if entry != SOURCE else set(flow.nodes)
    return set(nx.ancestors(flow, exit) & after) - {entry, SOURCE}
