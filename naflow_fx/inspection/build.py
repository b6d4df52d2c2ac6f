"""inspect_graph: from a generated program to its inspection, what there is to tell of each step."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.node import map_arg
from torch.utils._pytree import tree_leaves

from naflow_fx import keys
from naflow_fx.inspection.inspection import Inspection
from naflow_fx.inspection.program import Place, Program, name_of, site_of
from naflow_fx.inspection.records import Block, Captured, Edge, Link, Node, Row, around, block_of
from naflow_fx.options import Options
from naflow_fx.passes import _graph
from naflow_fx.passes import _inverse_steps as ways
from naflow_fx.rules.contract import CHANNEL

Run = Mapping[str, Mapping[str, Tensor]]  # "residual" and its kin -> call site -> [N]


def inspect_graph(gm: fx.GraphModule, options: Options, run: Run, model: str) -> Inspection:
    """The inspection of a generated program.

    Args:
        gm: as `naflow_fx.compile` generates it.
        options: how it was compiled.
        run: how far Z could be trusted in a run, and what was damped by; what lacks is left out.
        model: its name.
    """
    program = Program(gm)
    writer = Writer(program, options, run)
    places = program.places.values()
    nodes = tuple(map(writer.node, places))
    rows = tuple(_row(place.node) for place in places if place.kind == "map")
    return Inspection(model, _blocks(nodes), nodes, _edges(program), rows)


def _blocks(nodes: Sequence[Node]) -> tuple[Block, ...]:
    """Every block that a node is in, and the blocks around it, in forward order."""
    merges = {node.block for node in nodes if node.how in (ways.REMAINDER, ways.PROPAGATED)}
    names = dict.fromkeys(id for node in nodes for id in ("", *around(node.block)))
    return tuple(Block(id, block_of(id) if id else None, id in merges) for id in names)


def _edges(program: Program) -> tuple[Edge, ...]:
    """Who reads whom."""
    found = (
        Edge(source.id, place.id, _link(source, place))
        for place in program.places.values()
        for node in program.reads(place)
        if (source := program.source(node, place)) is not None
    )
    return tuple(dict.fromkeys(found))


def _link(source: Place, reader: Place) -> Link:
    """What flows from one step to another."""
    if source.kind == "forward":
        return "forward" if reader.kind == "forward" else "capture"
    return "inverse" if source.kind == "map" else source.kind


def _row(node: fx.Node) -> Row:
    """What is told of a call site that is computed."""
    step = node.meta.get(keys.STEP)
    captures = tree_leaves(list(node.meta.get(keys.CAPTURES, {}).values()))
    return Row(
        layer=node.meta[keys.SITE],
        operator=node.meta.get(keys.RULE, "input"),
        shape="x".join("N" if size == -1 else str(size) for size in node.meta[keys.SHAPE]),
        captures=", ".join(captures) or "-",
        inverse=step.node if step else "-",
        kind=step.kind if step else "-",
        equation=step.equation if step else "-",
        importance=node.meta.get(keys.IMPORTANCE, "-"),
        region=(step.region if step else "") or "-",
    )


DOCS = {
    ways.START: "Z is the forward activation: here the cascade starts",
    ways.CONTROL: "Z is the forward activation: a control branch is captured, not inverted",
    ways.DAMPED: "d (z - c) / (d^2 + damping max d^2), the maximum per image",
    ways.LEAST_SQUARES: "argmin_v ||R (A v - (z - c))||^2 + damping sigma_max(R A)^2 ||v||^2",
    ways.REMAINDER: "what the other branches leave of Z at the merge",
    ways.PROPAGATED: "the captured affine forward of Z at the region's fork, of used neurons",
}
REDUCTIONS = {"sum": "Eq. 2", "channelwise": "Eq. 2, channel by channel"}
MANY = 4  # operators, beyond which they are counted, not named
BATCHES = (2, 3)  # what differs between them is the batch dimension


class Writer:
    """Writes the node of each place of a program."""

    def __init__(self, program: Program, options: Options, run: Run) -> None:
        self.program, self.options, self.run = program, options, run
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        self.value = cache(self._value)

    def node(self, place: Place) -> Node:
        """All that is to be told about a place."""
        node, name = place.node, name_of(place.node)
        common: dict[str, Any] = {
            "id": place.id,
            "kind": place.kind,
            "site": site_of(node),
            "name": name,
            "block": block_of(name),
            "operator": node.meta.get(keys.RULE, "input"),
            "shape": node.meta[keys.SHAPE],
        }
        tell = {"forward": self._forward, "capture": self._capture, "map": self._map,
                "importance": self._importance, "inverse": self._inverse}  # fmt: skip
        return Node(**common | tell[place.kind](place))

    def _forward(self, place: Place) -> dict[str, Any]:
        rule = _graph.rule_of(place.node)
        held = tuple(map(self.measure, self.program.captures(place.node)))
        return {"captures": held, "doc": _line(rule.forward) if rule else "what the model is given"}

    def _capture(self, place: Place) -> dict[str, Any]:
        held, doc = self.measure(place.made), _line(_graph.rule(place.node).capture)
        return {"shape": held.shape, "captures": (held,), "doc": doc}

    def _importance(self, place: Place) -> dict[str, Any]:
        doc = "d score / d x: the chain rule, from what reads x"
        return {"equation": "Eq. 15", "captures": self._read(place), "doc": doc}

    def _map(self, place: Place) -> dict[str, Any]:
        options, meta = self.options, place.node.meta
        how = REDUCTIONS[options.reduction] if options.method == "naflow" else options.method
        shape = tuple(n for n, label in zip(meta[keys.SHAPE], meta[keys.LABELS], strict=True)
                      if label != CHANNEL)  # fmt: skip
        return {"operator": "map", "equation": how, "shape": shape, "doc": _line(place.made.target)}

    def _inverse(self, place: Place) -> dict[str, Any]:
        step: ways.Step = place.node.meta[keys.STEP]
        found: dict[str, Any] = {
            "equation": step.equation, "how": step.kind, "region": step.region,
            "residual": self._mean("residual", place),
            "norm_ratio": self._mean("norm_ratio", place),
            "doc": DOCS.get(step.kind, ""),
        }  # fmt: skip
        if place.made is place.node:
            return found
        operators = [self.program.names[name] for name in step.operators]
        return found | self._solver(step, place) | {
            "block": block_of(name_of(operators[-1])), "operator": _words(operators),
            "operators": step.operators, "captures": self._read(place),
            "doc": found["doc"] or _line(_graph.rule(operators[-1]).inverse),
        }  # fmt: skip

    def _solver(self, step: ways.Step, place: Place) -> dict[str, Any]:
        """Steps, damping and sigma_max, where they have a say."""
        found: dict[str, Any] = {}
        if step.kind in (ways.LEAST_SQUARES, ways.DAMPED) or step.sigma is not None:
            found["damping"] = self.options.inverse.damping
        if step.kind == ways.LEAST_SQUARES:
            solved = place.made.all_input_nodes[0]
            found["steps"] = self.program.gm.get_submodule(str(solved.target)).steps
        if step.sigma is not None:
            constant = isinstance(step.sigma, float)
            found["sigma_max"] = step.sigma if constant else self._mean("sigma_max", place)
        return found

    def _mean(self, part: str, place: Place) -> float | None:
        """A part of the run at a call site, over its images."""
        found = self.run.get(part, {}).get(site_of(place.node) or "")
        return None if found is None else float(found.double().mean())

    def _read(self, place: Place) -> tuple[Captured, ...]:
        """Tensors of the forward pass that a generated node reads; not the model's parameters."""
        found = []
        for node in self.program.reads(place):
            source = self.program.source(node, place)
            kind = node.meta.get(keys.PART) if source is None else source.kind
            if kind in ("forward", "capture"):
                found.append(self.measure(node))
        return tuple(found)

    def measure(self, node: fx.Node) -> Captured:
        """What a node holds: an activation, a capture or a folded constant."""
        with torch.no_grad(), self.mode:
            two, three = (self.value(node, batch) for batch in BATCHES)
        pairs = zip(two.shape, three.shape, strict=True)
        shape = tuple(int(a) if a == b else -1 for a, b in pairs)
        constant = _graph.is_constant(node)
        size = 0 if constant else two.numel() * two.element_size() // BATCHES[0]
        return Captured(node.name, size, str(two.dtype).removeprefix("torch."), shape, constant)

    def _value(self, node: fx.Node, batch: int) -> Any:
        """A fake tensor like the node's result (or a tuple of them) for a batch of that size."""
        if _graph.is_constant(node):
            tensor = _graph.attribute(self.program.gm, str(node.target))
            return self.mode.from_tensor(tensor).to("cpu")
        if keys.SHAPE in node.meta:
            shape = [batch if size == -1 else size for size in node.meta[keys.SHAPE]]
            return torch.empty(shape, dtype=node.meta[keys.DTYPE])
        assert callable(node.target), node
        args, kwargs = map_arg((node.args, node.kwargs), lambda n: self.value(n, batch))
        return node.target(*args, **kwargs)


def _words(operators: list[fx.Node]) -> str:
    """What is inverted as one: the operators, or how many they are."""
    if len(operators) > MANY:
        return f"{len(operators)} operators"
    return " + ".join(node.meta[keys.RULE] for node in operators)


def _line(function: Any) -> str:
    """The first line of a function's documentation."""
    return (inspect.getdoc(function) or "").partition("\n")[0] if callable(function) else ""
