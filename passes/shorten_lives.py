"""shorten_lives: every map as soon as it can be, every importance as late as it may be."""

from __future__ import annotations

from torch import fx

from naflow_fx import keys
from naflow_fx.passes import _module


def shorten_lives(gm: fx.GraphModule) -> fx.GraphModule:
    """The same nodes in an order that holds few large tensors at a time.

    Before: all of the importance graph, all of the inverse graph, all maps.  After: a node of
    `build_maps`, whose result is a map or a number per image, follows the last of its inputs;
    a node of `build_importance` precedes its first reader.  So Lambda and Z of a call site live
    while its map is made, and activations that only a norm reads end with the forward pass.
    Left alone: all other nodes, and what every node computes.
    """
    new = _module.copy(gm)
    for node in list(new.graph.nodes):
        if _is(node, "map") and node.all_input_nodes:
            _after(max(node.all_input_nodes), node)
    for node in reversed(list(new.graph.nodes)):
        if _is(node, "importance") and node.users:
            _before(min(node.users), node)
    return new


def _after(place: fx.Node, node: fx.Node) -> None:
    """Moves a map's node behind `place` and the others that follow it."""
    while place.next is not node and _is(place.next, "map"):
        place = place.next
    if place.next is not node:
        place.append(node)


def _before(place: fx.Node, node: fx.Node) -> None:
    """Moves an importance's node in front of `place` and the others that precede it."""
    while place.prev is not node and _is(place.prev, "importance"):
        place = place.prev
    if place.prev is not node:
        place.prepend(node)


def _is(node: fx.Node, part: str) -> bool:
    return node.meta.get(keys.PART) == part
