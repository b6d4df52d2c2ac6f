"""The steps of a generated program: which of its nodes stand for them, and who reads whom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from torch import fx
from torch.utils._pytree import tree_leaves

from naflow_fx import keys
from naflow_fx.inspection.records import Kind
from naflow_fx.passes import _graph
from naflow_fx.passes._graph import is_site_shaped
from naflow_fx.passes._inverse_steps import CONTROL, START, Step

Z = ".z"  # behind the id of a forward node: Z there, where it is the activation itself


@dataclass(frozen=True)
class Place:
    """One step: its id and kind, the forward node that it serves, the generated node it is."""

    id: str
    kind: Kind
    node: fx.Node
    made: fx.Node


class Program:
    """The places of a generated program, by id, and what each reads."""

    def __init__(self, gm: fx.GraphModule) -> None:
        self.gm = gm
        self.names = _graph.names(gm.graph)
        result: Any = gm.graph.output_node().args[0]
        self.maps: dict[str, fx.Node] = result["maps"]
        forward = [node for node in gm.graph.nodes if is_forward(node)]
        places = [place for node in forward for place in self._places(node)]
        places.sort(key=lambda place: get_args(Kind).index(place.kind))
        self.places = {place.id: place for place in places}
        self.held = {p.made: p.id for p in places if not p.id.endswith(Z)}

    def captures(self, node: fx.Node) -> list[fx.Node]:
        """The generated nodes and constants that hold what is captured of a forward node."""
        names = tree_leaves(list(node.meta.get(keys.CAPTURES, {}).values()))
        found = [self.names[name] for name in names if name in self.names]
        return [n for n in found if n.users and not is_forward(n)]

    def reads(self, place: Place) -> list[fx.Node]:
        """The nearest places and constants before a place; other generated nodes left out."""
        if place.id.endswith(Z):
            return [place.made]
        found: dict[fx.Node, None] = {}
        todo, seen = list(reversed(_inputs(place.made))), {place.made}
        while todo:
            node = todo.pop()
            if node in seen:
                continue
            seen.add(node)
            if node in self.held or _graph.is_constant(node):
                found[node] = None
            else:
                todo += reversed(_inputs(node))
        return list(found)

    def source(self, node: fx.Node, reader: Place) -> Place | None:
        """The place that `reader` reads `node` as: Z where that is the activation; None: none."""
        z = self.places.get(node.name + Z)
        if z is not None and reader.id != z.id:
            step: Step = node.meta[keys.STEP]
            if reader.kind == "map" or (reader.kind == "inverse" and step.kind == START):
                return z
        return self.places.get(self.held.get(node, ""))

    def _places(self, node: fx.Node) -> Iterator[Place]:
        """A forward node, and what was generated for it."""
        yield Place(node.name, "forward", node, node)
        for made in self.captures(node):
            if not _graph.is_constant(made):
                yield Place(made.name, "capture", node, made)
        importance = self.names.get(node.meta.get(keys.IMPORTANCE, ""))
        if importance is not None:
            yield Place(importance.name, "importance", node, importance)
        step: Step | None = node.meta.get(keys.STEP)
        inverse = self.names.get(step.node) if step else None
        if inverse is node and step and (step.kind != CONTROL or site_of(node) in self.maps):
            yield Place(node.name + Z, "inverse", node, node)
        elif inverse is not None and inverse is not node:
            yield Place(inverse.name, "inverse", node, inverse)
        shown = self.maps.get(site_of(node) or "")
        if shown is not None:
            yield Place(shown.name, "map", node, shown)


def _inputs(node: fx.Node) -> list[fx.Node]:
    """What a generated node was made from.

    The inverse of a merge is handed the merge's operands for the constants among them alone; which
    neurons are used is no number that a step computes with.
    """
    offered = {k: v for k, v in node.kwargs.items() if k != "inputs" or is_forward(node)}
    read = (n for n in _graph.uses((node.args, offered)) if n.meta.get(keys.PART) != "use")
    return list(dict.fromkeys(read))


def is_forward(node: fx.Node) -> bool:
    """Whether a node is an operator of the model, or its input, that carries an activation."""
    known = keys.LABELS in node.meta and keys.PART not in node.meta
    return known and bool(node.meta.get(keys.ACTIVE)) and not _graph.is_constant(node)


def site_of(node: fx.Node) -> str | None:
    """The call site that a forward node is, if it is one."""
    reached = keys.IMPORTANCE in node.meta and is_site_shaped(node.meta[keys.LABELS])
    return name_of(node) if reached else None


def name_of(node: fx.Node) -> str:
    """A forward node's name in the model."""
    return str(node.meta.get(keys.SITE, node.name))
