"""What passes ask of a graph: nodes by name, rules, dimensions; and how rules are called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import fx
from torch.fx.node import Argument, map_aggregate, map_arg

from naflow_fx import keys
from naflow_fx.rules import TABLE
from naflow_fx.rules.contract import BATCH, CHANNEL, SPACE, Function, Labels, Rule, parameters

State = dict[str, Any]


def names(graph: fx.Graph) -> dict[str, fx.Node]:
    """All nodes by name."""
    return {node.name: node for node in graph.nodes}


def output_node(graph: fx.Graph) -> fx.Node:
    """The output node."""
    found: fx.Node = next(node for node in reversed(graph.nodes) if node.op == "output")
    return found


def rule_of(node: fx.Node) -> Rule | None:
    """The rule of a canonical node; None for inputs, constants and helpers."""
    name = node.meta.get(keys.RULE)
    return TABLE.rules[name] if name else None


def is_active(value: Any) -> bool:
    """Whether an argument is a differentiable function of the input."""
    return isinstance(value, fx.Node) and bool(value.meta.get(keys.ACTIVE))


def operands(node: fx.Node, invertible: bool = False) -> list[fx.Node]:
    """The active operands of a canonical node, in order; without its gates if `invertible`."""
    rule = rule_of(node)
    if rule is None:
        return []
    wanted = rule.invertible_operands if invertible else rule.operands
    found: list[Any] = []
    for name in wanted:
        value = node.kwargs.get(name)
        found += list(value) if isinstance(value, (list, tuple)) else [value]
    return [value for value in found if is_active(value)]


def state(node: fx.Node, graph_names: Mapping[str, fx.Node]) -> State:
    """Everything that a rule's functions may ask for at `node`, by name (see `rule.py`)."""
    rule = rule_of(node)
    assert rule is not None
    found: State = {"output": node, "output_shape": node.meta[keys.SHAPE]}
    for name, capture in node.meta.get(keys.CAPTURES, {}).items():
        found[name] = map_aggregate(
            capture, lambda x: graph_names.get(x) if isinstance(x, str) else x
        )
    if rule.variadic:
        inputs: Any = node.kwargs[rule.operands[0]]
        found["active"] = tuple(i for i, x in enumerate(inputs) if is_active(x))
        found["input_shapes"] = [_shape(x) for x in inputs]
    else:
        values = [node.kwargs.get(name) for name in rule.operands]
        found["active"] = tuple(i for i, value in enumerate(values) if is_active(value))
        found["input_shape"] = _shape(values[0])
    return dict(node.kwargs) | found


def has_shift(node: fx.Node) -> bool:
    """Whether c of a node's affine form is not 0."""
    rule = rule_of(node)
    if rule is None or rule.shift is None:
        return False
    if rule.has_shift is None:
        return True
    offered = state(node, {})
    return bool(rule.has_shift(**{name: offered[name] for name in parameters(rule.has_shift)}))


def _shape(value: Any) -> tuple[int, ...]:
    return value.meta[keys.SHAPE] if isinstance(value, fx.Node) else ()


def call(
    graph: fx.Graph,
    function: Function,
    leading: Iterable[Any],
    state: State,
    name: str,
    **meta: Any,
) -> fx.Node:
    """Inserts ``function(*leading, **what it asks for)`` as a call_function node."""
    leading = tuple(leading)
    wanted = parameters(function)[len(leading) :]
    kwargs = {key: state[key] for key in wanted if key in state}
    node = graph.create_node("call_function", function, leading, kwargs, name=name)
    node.meta.update(meta)
    return node


def is_constant(node: fx.Node) -> bool:
    """Whether a node is a tensor that the compiler knows: a parameter or a folded result."""
    return node.op == "get_attr"


def attribute(gm: torch.nn.Module, target: str) -> Any:
    """The attribute at a dotted path."""
    found: Any = gm
    for part in target.split("."):
        found = getattr(found, part)
    return found


def resolve(argument: Any, gm: fx.GraphModule) -> Any:
    """An argument with constant nodes replaced by their tensors, others by None."""
    return map_arg(
        argument, lambda node: attribute(gm, str(node.target)) if is_constant(node) else None
    )


def uses(argument: Argument) -> list[fx.Node]:
    """The nodes in an argument."""
    found: list[fx.Node] = []
    map_arg(argument, lambda node: found.append(node))
    return found


def convolves(node: fx.Node) -> bool:
    """Whether a node is a convolution of some kind."""
    rule = rule_of(node)
    return rule is not None and rule.convolves


def is_spatial(node: fx.Node) -> bool:
    """Whether a node still has a batch with space: the cascade runs through it."""
    batch = -1 in node.meta.get(keys.SHAPE, ())  # a score of one sample drops it
    return batch and any(label in "SsT" for label in node.meta.get(keys.LABELS, ()))


def is_site_shaped(labels: Labels) -> bool:
    """Whether the dimensions are batch, channel and space, each tracked."""
    return (
        labels.count(BATCH) == 1
        and labels.count(CHANNEL) == 1
        and SPACE in labels
        and set(labels) <= {BATCH, CHANNEL, SPACE}
    )
