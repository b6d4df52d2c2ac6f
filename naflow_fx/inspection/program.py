"""The steps of a generated program: which of its nodes stand for them, and who reads whom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, get_args

from torch import fx
from torch.utils._pytree import tree_leaves

from naflow_fx import keys
from naflow_fx.inspection.records import Kind
from naflow_fx.passes import _graph
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
        self.nearest: dict[fx.Node, list[fx.Node]] = {}  # places and constants before each node
        for node in gm.graph.nodes:
            found = ([n] if n in self.held or _graph.is_constant(n) else self.nearest[n]
                     for n in _inputs(node))  # fmt: skip
            self.nearest[node] = list(dict.fromkeys(chain.from_iterable(found)))

    def captures(self, node: fx.Node) -> list[fx.Node]:
        """The generated nodes and constants that hold what is captured of a forward node."""
        names = tree_leaves(list(node.meta.get(keys.CAPTURES, {}).values()))
        found = [self.names[name] for name in names if name in self.names]
        return [n for n in found if n.users and not is_forward(n)]

    def reads(self, place: Place) -> list[fx.Node]:
        """The nearest places and constants before a place; other generated nodes left out."""
        return [place.made] if place.id.endswith(Z) else self.nearest[place.made]

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
        site = site_of(node) or ""
        step: Step | None = node.meta.get(keys.STEP)
        if step is not None and step.kind == CONTROL and site not in self.maps:
            step = None
        generated: dict[Kind, fx.Node | None] = {
            "importance": self.names.get(node.meta.get(keys.IMPORTANCE, "")),
            "inverse": None if step is None else self.names.get(step.node),
            "map": self.maps.get(site),
        }
        for kind, found in generated.items():
            if found is not None:
                yield Place(found.name + (Z if found is node else ""), kind, node, found)


def _inputs(node: fx.Node) -> list[fx.Node]:
    """What a generated node was made from.

    The inverse of a merge is handed the merge's operands for the constants among them alone; which
    neurons are used is no number that a step computes with.
    """
    offered = {k: v for k, v in node.kwargs.items() if k != "inputs" or is_forward(node)}
    return [n for n in _graph.uses((node.args, offered)) if n.meta.get(keys.PART) != "use"]


def is_forward(node: fx.Node) -> bool:
    """Whether a node is an operator of the model, or its input, that carries an activation."""
    known = keys.LABELS in node.meta and keys.PART not in node.meta
    return known and bool(node.meta.get(keys.ACTIVE)) and not _graph.is_constant(node)


def site_of(node: fx.Node) -> str | None:
    """The call site that a forward node is, if it is one."""
    reached = keys.IMPORTANCE in node.meta and _graph.is_site_shaped(node.meta[keys.LABELS])
    return name_of(node) if reached else None


def name_of(node: fx.Node) -> str:
    """A forward node's name in the model."""
    return str(node.meta.get(keys.SITE, node.name))
