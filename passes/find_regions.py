"""find_regions: the single-entry single-exit parts of the cascade, by dominators."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import networkx as nx
from torch import fx

from naflow_fx.passes import _graph

INPUTS: Any = "<inputs>"  # in front of all of them


@dataclass(frozen=True)
class Region:
    """From a fork to the merge that all its paths reach.

    Attributes:
        entry: the fork; None: paths begin at several inputs.
        nodes: what lies behind it, in forward order; the last one is the merge.
        kind: "residual", "concatenation", ...: what its merge's rule calls it.
        series_parallel: whether every node inside belongs to one branch of the merge.
    """

    entry: fx.Node | None
    nodes: tuple[fx.Node, ...]
    kind: str
    series_parallel: bool


def find_regions(graph: fx.Graph, cascade: Container[fx.Node]) -> dict[fx.Node, Region]:
    """The region that ends at each merge of the cascade: from its immediate dominator on.

    A node with several sources is a merge.  Its immediate dominator is where all ways to it fork.
    Whether the region is single-exit is the caller's business: it meets merges on the way back
    from the end only.
    """
    members = [node for node in graph.nodes if node in cascade]
    flow = nx.DiGraph()  # given the edges, older releases of networkx would import pandas
    flow.add_edges_from((x, node) for node in members for x in _graph.sources(node) or [INPUTS])
    dominators = nx.immediate_dominators(flow, INPUTS)
    merges = [node for node in members if len(_graph.sources(node)) > 1]
    return {node: _region(flow, dominators[node], node, members) for node in merges}


def _region(flow: nx.DiGraph, entry: Any, merge: fx.Node, members: list[fx.Node]) -> Region:
    behind = nx.descendants(flow, entry)
    branches = [behind & {x, *nx.ancestors(flow, x)} for x in _graph.sources(merge)]
    inside = set().union(*branches)
    nodes = (*(node for node in members if node in inside), merge)
    parallel = sum(map(len, branches)) == len(inside)
    rule = _graph.rule(merge)
    fork = None if entry == INPUTS else entry
    return Region(fork, nodes, rule.merge or rule.name, parallel)
