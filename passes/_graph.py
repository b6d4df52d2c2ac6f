"""What passes share: copying a graph, adding constants, calling a rule's functions by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import fx
from torch.fx.node import Argument, map_aggregate, map_arg

from naflow_fx import keys
from naflow_fx.explanation import Draft, Explanation
from naflow_fx.rule import Function, Rule, parameters
from naflow_fx.rules import TABLE

State = dict[str, Any]


def copy(gm: fx.GraphModule) -> fx.GraphModule:
    """A GraphModule with a graph of its own, same node names and metadata, shared tensors."""
    graph = fx.Graph()
    result: Any = graph.graph_copy(gm.graph, {}, return_output_node=True)
    graph.output(result[0])
    output_node(graph).meta = dict(result[1].meta)
    return rebuild(gm, graph)


def rebuild(
    root: fx.GraphModule | Mapping[str, Any],
    graph: fx.Graph,
    kind: type[fx.GraphModule] = Draft,
) -> fx.GraphModule:
    """A GraphModule of `graph`, with what it uses of `root` shared."""
    source: Any = root if isinstance(root, fx.GraphModule) else dict(root)
    made = kind(source, graph, class_name=kind.__name__)
    if isinstance(root, fx.GraphModule):
        made.meta = dict(root.meta)
    return made


def finished(gm: fx.GraphModule) -> Explanation:
    """The program of a graph that no pass changes any more."""
    made = rebuild(gm, gm.graph, Explanation)
    assert isinstance(made, Explanation)
    return made


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
