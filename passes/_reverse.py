"""The reverse walk that importance, decomposition, use counts and A^T share."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from torch import fx

T = TypeVar("T")
Total = Callable[[fx.Node, list[T]], T]
Back = Callable[[fx.Node, T], Iterable[tuple[fx.Node, T]]]


def walk_back(
    nodes: Iterable[fx.Node], seeds: Mapping[fx.Node, T], total: Total[T], back: Back[T]
) -> dict[fx.Node, T]:
    """What every node that the seeds reach gets from its readers, last node first.

    Args:
        nodes: in forward order.
        seeds: what comes from outside.
        total: ``total(node, parts)``: all that was sent to a node, as one.
        back: ``back(node, its total)``: the operands that it sends to, and what.
    """
    parts = {node: [seed] for node, seed in seeds.items()}
    totals: dict[fx.Node, T] = {}
    for node in reversed(list(nodes)):
        if node in parts:
            totals[node] = total(node, parts.pop(node))
            for operand, part in back(node, totals[node]):
                parts.setdefault(operand, []).append(part)
    return totals


def added(graph: fx.Graph, parts: list[fx.Node]) -> fx.Node:
    """The sum of nodes, from the first on."""
    total = parts[0]
    for part in parts[1:]:
        total = graph.call_function(operator.add, (total, part))
    return total
