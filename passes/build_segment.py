"""build_segment: the importance graph of one part of the network, from a node back to another."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

from torch import fx

from naflow_fx import evidence, keys
from naflow_fx.passes import _affine, _graph
from naflow_fx.passes.build_importance import differentiable

Parts = dict[fx.Node, list[fx.Node]]


@dataclass(frozen=True)
class Segment:
    """The part of a network from `entry` (excluded) to `end`, run backwards.

    Attributes:
        program: ``(*needs, w) -> (v, constants)``: w, shaped as `end`, is what one unit of `end`
            is worth; v, shaped as `entry`, what one of `entry` is worth (the vector-Jacobian
            product); constants {rule: number}, what the operators' constants are worth, so that
            ``<w, end> = <v, entry> + sum of constants``.
        needs: names of the forward's nodes that it reads, captures among them.
        end: name of the later node.
        entry: name of the earlier one.
    """

    program: fx.GraphModule
    needs: tuple[str, ...]
    end: str
    entry: str


def build_segment(gm: fx.GraphModule, end: str, entry: str) -> Segment:
    """One `vjp` node per operator between two cuts, and the worth of its constants.

    Before: a canonical graph with captures, `end` and `entry` of `find_cuts`, `entry` first.
    After: left alone; the segment is a program of its own, its parameters shared.
    """
    return _Builder(gm, end, entry).build()


class _Builder:
    def __init__(self, gm: fx.GraphModule, end: str, entry: str) -> None:
        self.gm, self.graph = gm, fx.Graph()
        self.names = _graph.names(gm.graph)
        self.end, self.entry = self.names[end], self.names[entry]
        self.w = self.graph.placeholder("w")
        self.places: dict[fx.Node, fx.Node] = {}
        self.constants: dict[str, fx.Node] = {}

    def build(self) -> Segment:
        """The segment."""
        parts: Parts = {self.end: [self.w]}
        for node in reversed(self.gm.graph.nodes):
            if node in parts and node is not self.entry:
                self._back(node, parts)
        self.graph.output((self._sum(parts[self.entry]), self.constants))
        program = fx.GraphModule(self.gm, self.graph, class_name="Segment")
        program.graph.lint()
        needs = [n.name for n in self.places if not _graph.is_constant(n)]
        return Segment(program, tuple(needs), self.end.name, self.entry.name)

    def _back(self, node: fx.Node, parts: Parts) -> None:
        """Passes what `node` is worth on to its operands, and keeps what its constants are."""
        rule = _graph.rule_of(node)
        assert rule is not None
        w = self._sum(parts.pop(node))
        called = self._call(rule.vjp or rule.transpose, (w,), node)
        several = rule.variadic or (rule.vjp is not None and len(rule.operands) > 1)
        given = [(x, self.graph.call_function(operator.getitem, (called, i)) if several else called)
                 for i, x in enumerate(differentiable(node)) if x is not None]  # fmt: skip
        for operand, part in given:
            parts.setdefault(operand, []).append(part)
        if rule.vjp is not None:
            values = [self.place(operand) for operand, _ in given]
            terms = (w, self.place(node), [part for _, part in given], values)
            self._keep(rule.name, self.graph.call_function(evidence.intercept, terms))
        elif _graph.has_shift(node):
            shift = self._call(rule.shift, (), node)
            self._keep(rule.name, self.graph.call_function(evidence.worth, (w, shift)))

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

    def _call(self, function: Any, leading: tuple[Any, ...], node: fx.Node) -> fx.Node:
        return _affine.emit(self.graph, function, leading, node, self._state, self.place)

    def _state(self, node: fx.Node) -> _graph.State:
        return _graph.state(node, self.names)

    def _sum(self, parts: list[fx.Node]) -> fx.Node:
        total = parts[0]
        for part in parts[1:]:
            total = self.graph.call_function(operator.add, (total, part))
        return total

    def _keep(self, name: str, term: fx.Node) -> None:
        known = self.constants.get(name)
        self.constants[name] = term if known is None else self._sum([known, term])
        self.constants[name].meta[keys.PART] = "constants"
