"""A generated program as text for a reader: sections, blocks, a line a step."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from inspect import signature
from itertools import groupby
from typing import Any

from torch import fx
from torch.fx.node import map_arg

from naflow_fx import keys
from naflow_fx.inspection.program import name_of
from naflow_fx.inspection.records import block_of
from naflow_fx.passes import _graph
from naflow_fx.passes._inverse_steps import Step

SECTIONS = {
    "forward": "Forward, and what is captured",
    "importance": "Importance: Lambda = d score / d x, from the score back (Eq. 15)",
    "inverse": "Inverse: Z, from the feature node back",
    "use": "Use: which neurons reach the feature node, and how often each is read (Fig. 3)",
    "map": "Maps, and how far each Z can be trusted",
}


class _Raw(str):
    """A word that is printed without quotes."""

    def __repr__(self) -> str:
        return str(self)


def readable(gm: fx.GraphModule) -> str:
    """The text of a generated program, its sections one after the other.

    That is an order in which it could run; `graph` has the order that frees memory early.
    """
    return "\n".join(_Text(gm).lines())


class _Text:
    def __init__(self, gm: fx.GraphModule) -> None:
        self.graph = gm.graph
        self.names = _graph.names(gm.graph)
        steps = {n: n.meta[keys.STEP] for n in gm.graph.nodes if keys.STEP in n.meta}
        self.makes = {step.node: node for node, step in steps.items() if step.node != node.name}

    def lines(self) -> Iterator[str]:
        """All lines."""
        inputs = [node.name for node in self.graph.nodes if node.op == "placeholder"]
        yield f"def forward(self, {', '.join(inputs)}):"
        silent = ("placeholder", "get_attr", "output")
        pieces = {piece for node in self.graph.nodes for piece in _pieces(node)}
        steps = [n for n in self.graph.nodes if n.op not in silent and n not in pieces]
        steps.sort(key=lambda node: [*SECTIONS].index(_section(node)))
        for section, inside in groupby(steps, _section):
            yield f"\n    # {SECTIONS[section]}\n    # {'-' * len(SECTIONS[section])}"
            for number, (block, nodes) in enumerate(groupby(inside, self._block)):
                if number or block:
                    yield f"\n    # {block or 'outside of blocks'}"
                yield from (f"    {self._line(node)}" for node in nodes)
        yield from self._result(self.graph.output_node().args[0])

    def _block(self, node: fx.Node) -> str:
        """The block of the forward node that a generated node serves."""
        source = self.names.get(str(node.meta.get(keys.SOURCE, "")), node)
        return block_of(name_of(node)) if source is node else self._block(source)

    def _line(self, node: fx.Node) -> str:
        """One step: its results, the call, what it is."""
        pieces = _pieces(node)
        made = ", ".join(piece.name for piece in pieces) or node.name
        line = f"{made} = {self._call(node)}"
        note = self._note([node, *pieces])
        return f"{line}  # {note}" if note else line

    def _note(self, nodes: list[fx.Node]) -> str:
        """Of an inverse step whose Z it makes and how; of an operator its shape."""
        for node in nodes:
            if node.name in self.makes:
                of = self.makes[node.name]
                step: Step = of.meta[keys.STEP]
                return f"Z of {name_of(of)}: {step.kind}, {step.equation}"
        if keys.RULE not in nodes[0].meta:
            return ""
        shape = ", ".join("N" if size == -1 else str(size) for size in nodes[0].meta[keys.SHAPE])
        return f"[{shape}]"

    def _call(self, node: fx.Node) -> str:
        """The call, constants by their place in the model."""
        if node.op == "call_method":
            arguments = [self._value(x) for x in node.args[1:]]
            return f"{self._value(node.args[0])}.{node.target}({', '.join(arguments)})"
        target: Any = node.target
        symbol = {operator.add: "+", operator.sub: "-", operator.truediv: "/"}.get(target)
        if symbol is not None:
            return f" {symbol} ".join(map(self._value, node.args))
        if node.op == "call_module":
            return f"self.{node.target}({', '.join(self._solver(*node.args))})"
        arguments = [self._value(x) for x in node.args]
        for i, (name, value) in enumerate(self._told(node).items()):
            first = not i and not arguments
            arguments.append(self._value(value) if first else f"{name}={self._value(value)}")
        return f"{_function(node.target)}({', '.join(arguments)})"

    def _solver(self, z: Any, rows: Any, off: Any, *captures: Any) -> Iterator[str]:
        """Arguments of `LeastSquares`: what depends on the image; constants counted."""
        yield self._value(z)
        for name, value in (("rows", rows), ("off", off)):
            if value is not None:
                yield f"{name}={self._value(value)}"
        held = [x for x in captures if not (isinstance(x, fx.Node) and _graph.is_constant(x))]
        yield from map(self._value, held)
        if len(held) < len(captures):
            yield f"... {len(captures) - len(held)} constants"

    def _told(self, node: fx.Node) -> Mapping[str, Any]:
        """Keyword arguments: of the forward pass what is no default, else what holds tensors."""
        if keys.RULE not in node.meta or not callable(node.target):
            return {k: v for k, v in node.kwargs.items() if _graph.uses(v)}
        known = signature(node.target).parameters
        return {k: v for k, v in node.kwargs.items() if not _same(v, known[k].default)}

    def _value(self, value: Any) -> str:
        """An argument as text: a constant by its place in the model, a node by its name."""
        return repr(map_arg(value, _shown))

    def _result(self, result: Any) -> Iterator[str]:
        """The dictionary that is returned, long parts counted."""
        yield "\n    return {"
        for name, value in result.items():
            count = len(value) if isinstance(value, dict) else 0
            some = f"{{...}},  # by call site, {count} of them"
            yield f"        {name!r}: " + (some if count else f"{self._value(value)},")
        yield "    }"


def _shown(node: fx.Node) -> Any:
    return _Raw(f"self.{node.target}") if _graph.is_constant(node) else node


def _same(value: Any, default: Any) -> bool:
    """Whether an argument is its default, (1, 1) where that is (1,)."""
    if isinstance(value, tuple) and isinstance(default, tuple) and not _graph.uses(value):
        return set(value) == set(default)
    return not isinstance(value, fx.Node) and value == default


def _section(node: fx.Node) -> str:
    """The section that a node belongs to."""
    part = str(node.meta.get(keys.PART, ""))
    generated = keys.RULE not in node.meta and keys.SOURCE in node.meta
    return part if part in SECTIONS else "inverse" if generated and not part else "forward"


def _pieces(node: fx.Node) -> list[fx.Node]:
    """The single results of a step that nobody reads whole, in order; printed with the step."""
    parts = [user for user in node.users if user.target is operator.getitem]
    found: dict[Any, fx.Node] = {n.args[1]: n for n in parts if isinstance(n.args[1], int)}
    generated = not any(keys.RULE in n.meta for n in (node, *node.users))
    whole = len(found) == len(node.users) and set(found) == set(range(len(found)))
    return [found[i] for i in range(len(found))] if whole and generated else []


def _function(target: Any) -> str:
    """A function with the last part of its module: "conv.forward", "solve.size"."""
    module = str(getattr(target, "__module__", "") or "").rpartition(".")[2]
    name = getattr(target, "__name__", str(target))
    return name if module in ("", "_operator") else f"{module.removeprefix('_')}.{name}"
