"""The captured affine map of a part of the graph, written out in the rules' functions.

With everything captured, a layer, a chain or a whole region is ``y = A x + c``.  Here A, A^T and
c become graphs of `linear`, `transpose` and `shift` calls.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.fx.node import map_aggregate

from naflow_fx import keys
from naflow_fx.passes import _graph
from naflow_fx.rule import Rule, parameters
from naflow_fx.rules._shapes import spread

Lookup = Callable[[Any], Any]
Offer = Callable[[fx.Node], _graph.State]


@dataclass(frozen=True)
class Prepared:
    """A tensor that is made once for all steps of the solver: "weight" or "turned" of a layer."""

    layer: str
    what: str


class AffineMap:
    """A, A^T and c of the nodes from `entry` (excluded) to the last of `nodes`, as GraphModules.

    `needs` are captures and constants of the outer graph.  ``prepare(*needs)`` makes of them what
    the others take, once: weights with the scale of a batch norm behind them in them, and turned
    ones; None where there is nothing to make.  ``linear(v, *prepared)``,
    ``transpose(w, *prepared)``, ``offset(z, *prepared)`` (z: any output); `offset` is None where
    c = 0.
    """

    def __init__(
        self,
        gm: fx.GraphModule,
        nodes: Sequence[fx.Node],
        entry: fx.Node,
        names: Mapping[str, fx.Node],
    ) -> None:
        self.nodes, self.entry, self.exit = list(nodes), entry, nodes[-1]
        self.names = names
        self.scales = _scales(gm, self.nodes, names)
        self.merged = set(self.scales.values())
        self.needs = self._wanted(lambda node: _graph.state(node, names))
        self.prepared = self._wanted(self._offer, self.merged)
        self.prepare = None if self.prepared == self.needs else self._prepare()
        self.linear = self._linear()
        self.transpose = self._transpose()
        self.offset = self._offset()

    def _wanted(self, offer: Offer, merged: Container[fx.Node] = ()) -> list[Any]:
        """All that the rules' functions ask for, each once."""
        found: dict[Any, None] = {}
        for node in self.nodes:
            rule, offered = _rule(node), offer(node)
            shift = rule.shift if has_shift(node) else None
            maps = () if node in merged else ((rule.linear, 1), (rule.transpose, 1))
            for function, skip in (*maps, (shift, 0)):
                if function is not None:
                    wanted = [offered[k] for k in parameters(function)[skip:] if k in offered]
                    map_aggregate(wanted, lambda a: found.setdefault(a) if _is_tensor(a) else a)
        return list(found)

    def _offer(self, node: fx.Node) -> _graph.State:
        """What a node's functions may ask for in a step."""
        offered = _graph.state(node, self.names)
        if node in self.scales:
            offered["weight"] = Prepared(node.name, "weight")
        if self._turns(node):
            offered["turned"] = Prepared(node.name, "turned")
        return offered

    def _turns(self, node: fx.Node) -> bool:
        """Whether the layer's weight is a matrix that A^T takes turned."""
        rule, state = _rule(node), _graph.state(node, self.names)
        if rule.turned is None or not _graph.is_constant(state["weight"]):
            return False
        state["weight"] = torch.empty(state["weight"].meta[keys.SHAPE], device="meta")
        return _apply(rule.turned, state) is not None

    def _prepare(self) -> fx.GraphModule:
        graph = fx.Graph()
        made: dict[Any, Any] = {node: graph.placeholder(node.name) for node in self.needs}

        def make(function: Any, leading: Sequence[Any], state: _graph.State, key: Any) -> fx.Node:
            return _graph.call(graph, function, leading, _filled(state, made), _name(key))

        for layer in self.nodes:
            state, rule = _graph.state(layer, self.names), _rule(layer)
            weight, turned = (Prepared(layer.name, what) for what in ("weight", "turned"))
            if layer in self.scales:
                scale = self.scales[layer]
                known = _graph.state(scale, self.names)
                diagonal = make(_rule(scale).diagonal, (), known, scale)
                made[weight] = make(rule.scaled, (made[state["weight"]], diagonal), {}, weight)
            if self._turns(layer):
                made[turned] = make(rule.turned, (), self._offer(layer), turned)
        graph.output(tuple(made[key] for key in self.prepared))
        return _finish(graph, "Prepare")

    def _start(self, vector: str) -> tuple[fx.Graph, fx.Node, Lookup]:
        graph = fx.Graph()
        v = graph.placeholder(vector)
        places = {key: graph.placeholder(_name(key)) for key in self.prepared}
        return graph, v, places.__getitem__

    def _linear(self) -> fx.GraphModule:
        graph, v, lookup = self._start("v")
        values = {self.entry: v}
        self._emit(graph, values, lookup, shifts=False)
        graph.output(values[self.exit])
        return _finish(graph, "Linear")

    def _offset(self) -> fx.GraphModule | None:
        graph, z, lookup = self._start("z")
        values: dict[fx.Node, Any] = {self.entry: None}
        if any(_merges_batch(node) for node in self.nodes):  # then c's rows are not z's
            shape = self.entry.meta[keys.SHAPE]
            values[self.entry] = graph.call_function(spread, (0.0, z, shape))
        self._emit(graph, values, lookup, shifts=True, like=z)
        if values[self.exit] is None:
            return None
        graph.output(values[self.exit])
        return _finish(graph, "Offset")

    def _emit(
        self, graph: fx.Graph, values: dict[fx.Node, Any], lookup: Lookup, **how: Any
    ) -> None:
        emit_affine(graph, self.nodes, values, self._offer, lookup, merged=self.merged, **how)

    def _transpose(self) -> fx.GraphModule:
        graph, w, lookup = self._start("w")
        parts: dict[fx.Node, Any] = {self.exit: w}
        for node in reversed(self.nodes):
            if node not in parts:
                continue
            rule, called = _rule(node), parts.pop(node)
            if node not in self.merged:
                called = emit(graph, rule.transpose, (called,), node, self._offer, lookup)
            for i, operand in enumerate(_graph.operands(node, invertible=True)):
                part = _item(graph, called, i) if rule.variadic else called
                parts[operand] = part if operand not in parts else _add(graph, parts[operand], part)
        graph.output(parts[self.entry])
        return _finish(graph, "Transpose")


def emit_affine(
    graph: fx.Graph,
    nodes: Sequence[fx.Node],
    values: dict[fx.Node, Any],
    offer: Offer,
    lookup: Lookup,
    shifts: bool,
    suffix: str = "",
    like: fx.Node | None = None,
    merged: Container[fx.Node] = (),
) -> None:
    """Writes the captured affine forward of `nodes`; `values` holds the start and the results.

    None stands for zero, so that nothing is computed from it.  With `shifts`, c is added; where
    there is nothing to add it to, it is spread to the whole activation if `like`, a tensor of
    the batch, is given (a merge needs it whole).  The scale of a `merged` node is in the weight
    of the layer before it.
    """
    for node in nodes:
        if node in values:
            continue
        rule = _rule(node)
        inputs = [values.get(operand) for operand in _graph.operands(node, invertible=True)]
        value = None
        if node in merged:
            value = inputs[0]
        elif any(v is not None for v in inputs):
            leading = (inputs,) if rule.variadic else (inputs[0],)
            value = emit(graph, rule.linear, leading, node, offer, lookup, suffix)
        if shifts and has_shift(node):
            shift = emit(graph, rule.shift, (), node, offer, lookup, suffix)
            if value is None and like is not None:
                shape = node.meta[keys.SHAPE]
                shift = graph.call_function(spread, (shift, like, shape))
            name = f"{node.name}_{suffix or 'linear'}_shifted"
            value = shift if value is None else _add(graph, value, shift, name)
        values[node] = value


def _scales(
    gm: fx.GraphModule, nodes: Sequence[fx.Node], names: Mapping[str, fx.Node]
) -> dict[fx.Node, fx.Node]:
    """Layer -> the constant scale of its channels that comes next, where nothing is between."""
    readers: dict[fx.Node, list[fx.Node]] = {}
    for node in nodes:
        for operand in _graph.operands(node, invertible=True):
            readers.setdefault(operand, []).append(node)
    found = {}
    for layer in nodes:
        behind = readers.get(layer, [])
        scalable = _rule(layer).scaled is not None and not has_shift(layer)
        if scalable and len(behind) == 1 and _scales_channels(gm, behind[0], names):
            found[layer] = behind[0]
    return found


def _scales_channels(gm: fx.GraphModule, node: fx.Node, names: Mapping[str, fx.Node]) -> bool:
    """Whether an operator's d is one constant number for each channel."""
    function, state = _rule(node).diagonal, _graph.state(node, names)
    if function is None:
        return False
    wanted = {name: state[name] for name in parameters(function)}
    if not all(map(_graph.is_constant, _graph.uses(wanted))):
        return False
    channels, *space = node.meta[keys.SHAPE][1:]
    diagonal = function(**_graph.resolve(wanted, gm))
    return tuple(diagonal.shape) == (1, channels, *(1,) * len(space))


def has_shift(node: fx.Node) -> bool:
    """Whether c of a node's affine form is not 0."""
    rule = _rule(node)
    if rule.shift is None or rule.has_shift is None:
        return rule.shift is not None
    offered = _graph.state(node, {})
    return bool(rule.has_shift(**{name: offered[name] for name in parameters(rule.has_shift)}))


def _merges_batch(node: fx.Node) -> bool:
    """Whether a reshape puts other dimensions into the batch, or takes them out again."""
    before = _graph.state(node, {}).get("input_shape", ())
    after = node.meta[keys.SHAPE]
    return _rule(node).name == "reshape" and math.prod(before[1:]) != math.prod(after[1:])


def emit(
    graph: fx.Graph,
    function: Any,
    leading: Sequence[Any],
    node: fx.Node,
    offer: Offer,
    lookup: Lookup,
    suffix: str = "",
) -> fx.Node:
    """Inserts a rule's function of `node`; `lookup` gives the values that it asks for."""
    offered = offer(node)
    wanted = parameters(function)[len(leading) :]
    mapped = {
        key: map_aggregate(offered[key], lambda a: lookup(a) if _is_tensor(a) else a)
        for key in wanted
        if key in offered
    }
    name = f"{node.name}_{suffix or function.__name__}"
    made = _graph.call(graph, function, leading, mapped, name)
    made.meta[keys.SOURCE] = node.name
    return made


def _is_tensor(value: Any) -> bool:
    """Whether an argument stands for a tensor."""
    return isinstance(value, (fx.Node, Prepared))


def _filled(state: _graph.State, made: Mapping[Any, Any]) -> _graph.State:
    """The state with what was made in its place."""
    found: Any = map_aggregate(state, lambda a: made.get(a) if _is_tensor(a) else a)
    return dict(found)


def _apply(function: Any, state: _graph.State) -> Any:
    return function(**{name: state[name] for name in parameters(function)})


def _name(key: Any) -> str:
    return f"{key.layer}_{key.what}" if isinstance(key, Prepared) else str(key.name)


def _rule(node: fx.Node) -> Rule:
    rule = _graph.rule_of(node)
    assert rule is not None, f"{node.name} has no rule"
    return rule


def _item(graph: fx.Graph, node: fx.Node, index: int) -> fx.Node:
    return graph.call_function(operator.getitem, (node, index))


def _add(graph: fx.Graph, a: fx.Node, b: fx.Node, name: str | None = None) -> fx.Node:
    return graph.create_node("call_function", operator.add, (a, b), {}, name=name)


def _finish(graph: fx.Graph, name: str) -> fx.GraphModule:
    return fx.GraphModule({}, graph, class_name=name)
