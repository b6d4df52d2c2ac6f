"""build_segment: the importance graph of one part of the network, from a node back to another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import fx
from torch.fx.node import map_arg

from naflow_fx import keys
from naflow_fx.maps import evidence
from naflow_fx.passes import _graph
from naflow_fx.passes._reverse import added, walk_back
from naflow_fx.passes.build_importance import Importance
from naflow_fx.rules.contract import CHANNEL, SPACE


@dataclass(frozen=True)
class Segment:
    """The part of a network from `entry` (excluded) to `end`, run backwards.

    Attributes:
        program: ``(*needs, w) -> (v, constants)``: w, shaped as `end`, is what one unit of `end`
            is worth; v, shaped as `entry`, what one of `entry` is worth (the vector-Jacobian
            product); constants {rule: number}, what the operators' constants are worth, so that
            ``<w, end> = <v, entry> + sum of constants``.
        needs: names of the forward's nodes that it reads, captures among them.
        entry: name of the earlier node.
        site: the call site that it is.
        channel: which of its dimensions holds the channels.
        space: the sizes of its map.
    """

    program: fx.GraphModule
    needs: tuple[str, ...]
    entry: str
    site: str
    channel: int
    space: tuple[int, ...]


def build_segment(gm: fx.GraphModule, end: fx.Node, entry: fx.Node) -> Segment:
    """One `vjp` node per operator between two cuts, and the worth of its constants.

    Before: a canonical graph with captures, `end` and `entry` of `find_cuts`, `entry` first.
    After: left alone; the segment is a program of its own, its parameters shared.
    """
    return _Builder(gm, end, entry).build()


class _Builder(Importance):
    def __init__(self, gm: fx.GraphModule, end: fx.Node, entry: fx.Node) -> None:
        super().__init__(fx.Graph(), "importance", _graph.names(gm.graph))
        self.gm, self.end, self.entry = gm, end, entry
        self.w = self.graph.placeholder("w")
        self.places: dict[fx.Node, fx.Node] = {}
        self.constants: dict[str, fx.Node] = {}

    def build(self) -> Segment:
        """The segment."""
        nodes, seeds = self.gm.graph.nodes, {self.end: self.w}
        totals = walk_back(nodes, seeds, lambda _, parts: added(self.graph, parts), self.back)
        self.graph.output((totals[self.entry], self.constants))
        program = fx.GraphModule(self.gm, self.graph, class_name="Segment")
        program.graph.lint()
        needs = [n.name for n in self.places if not _graph.is_constant(n)]
        shape, labels = (self.entry.meta[key] for key in (keys.SHAPE, keys.LABELS))
        space = tuple(n for n, label in zip(shape, labels, strict=True) if label == SPACE)
        site, channel = self.entry.meta[keys.SITE], labels.index(CHANNEL)
        return Segment(program, tuple(needs), self.entry.name, site, channel, space)

    def back(self, node: fx.Node, total: fx.Node) -> list[tuple[fx.Node, fx.Node]]:
        """What `node` is worth to its operands; what its constants are is kept."""
        if node is self.entry:
            return []
        rule, given = _graph.rule(node), super().back(node, total)
        if rule.vjp is not None:
            values = [self.place(operand) for operand, _ in given]
            terms = (total, self.place(node), [part for _, part in given], values)
            self._keep(rule.name, self.graph.call_function(evidence.intercept, terms))
        elif _graph.has_shift(node):
            shift = self.ask(node, rule.shift, ())
            self._keep(rule.name, self.graph.call_function(evidence.worth, (total, shift)))
        return given

    def call(
        self,
        source: fx.Node,
        target: Any,
        args: Any,
        word: str,
        kwargs: Any = None,
        of: fx.Node | None = None,
    ) -> fx.Node:
        """The same with the places of what it reads of the forward pass."""
        return super().call(source, target, args, word, map_arg(kwargs, self.place), of)

    def place(self, node: fx.Node) -> fx.Node:
        """Where the program has a value of the forward pass: an input of it, or a constant."""
        if node not in self.places:
            with self.graph.inserting_before(self.w):
                self.places[node] = (
                    self.graph.get_attr(str(node.target))
                    if _graph.is_constant(node)
                    else self.graph.placeholder(node.name)
                )
        return self.places[node]

    def _keep(self, name: str, term: fx.Node) -> None:
        known = self.constants.get(name)
        self.constants[name] = term if known is None else added(self.graph, [known, term])
