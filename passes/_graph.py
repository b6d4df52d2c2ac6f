"""What passes ask of a graph: nodes by name, rules, dimensions; what a rule may ask for."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import fx, nn
from torch.fx.node import Argument, map_aggregate, map_arg
from torch.utils._pytree import tree_map_only

from naflow_fx import keys
from naflow_fx.rules import TABLE
from naflow_fx.rules.contract import BATCH, CHANNEL, SPACE, Function, Labels, Rule
from naflow_fx.rules.contract import asked as asked

State = dict[str, Any]


def names(graph: fx.Graph) -> dict[str, fx.Node]:
    """All nodes by name."""
    return {node.name: node for node in graph.nodes}


def reached(
    ends: Iterable[fx.Node], onward: Callable[[fx.Node], Iterable[fx.Node]]
) -> set[fx.Node]:
    """The ends, what `onward` gives for them, what it gives for these, and so on."""
    found: set[fx.Node] = set()
    todo = list(ends)
    while todo:
        node = todo.pop()
        if node not in found:
            found.add(node)
            todo += onward(node)
    return found


def rule_of(node: fx.Node) -> Rule | None:
    """The rule of a canonical node; None for inputs, constants and helpers."""
    name = node.meta.get(keys.RULE)
    return TABLE.rules[name] if name else None


def rule(node: fx.Node) -> Rule:
    """The rule of an operator's canonical node."""
    return TABLE.rules[node.meta[keys.RULE]]


def module_of(gm: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """The module that a traced node calls; None: it calls none."""
    return gm.get_submodule(str(node.target)) if node.op == "call_module" else None


def claimed(gm: fx.GraphModule, node: fx.Node) -> tuple[Rule, Function] | None:
    """The rule of a traced call, and the adapter to its arguments."""
    module = module_of(gm, node)
    return TABLE.targets.get(node.target) if module is None else TABLE.of_module(module)


def operator_name(node: fx.Node) -> str:
    """What a traced function or method is called: "add" of `operator.add`, `aten.add.Tensor`."""
    if node.op not in ("call_function", "call_method"):
        return ""
    name = getattr(node.target, "__name__", node.target)
    return str(name).split(".")[0]


def is_active(value: Any) -> bool:
    """Whether an argument is a differentiable function of the input."""
    return isinstance(value, fx.Node) and bool(value.meta.get(keys.ACTIVE))


def shape_of(value: Any) -> tuple[int, ...]:
    """The shape of a canonical node, -1 in the batch dimension; () of a number."""
    return value.meta.get(keys.SHAPE, ()) if isinstance(value, fx.Node) else ()


def operands(node: fx.Node) -> list[fx.Node]:
    """The active operands of a canonical node, in order."""
    known = rule_of(node)
    return _active(node, known.operands) if known else []


def sources(node: fx.Node) -> list[fx.Node]:
    """The operands that the inverse runs back to: the active ones that are no gates, in order."""
    known = rule_of(node)
    return _active(node, known.invertible_operands) if known else []


def _active(node: fx.Node, names: Iterable[str]) -> list[fx.Node]:
    return list(filter(is_active, uses([node.kwargs.get(name) for name in names])))


def state(node: fx.Node, graph_names: Mapping[str, fx.Node]) -> State:
    """Everything that a rule's functions may ask for at `node`, by name (see `contract.py`)."""
    known = rule(node)
    found: State = {"output": node, "output_shape": node.meta[keys.SHAPE]}
    for name, capture in node.meta.get(keys.CAPTURES, {}).items():
        found[name] = map_aggregate(
            capture, lambda x: graph_names.get(x) if isinstance(x, str) else x
        )
    values: Any = [node.kwargs.get(name) for name in known.operands]
    if known.variadic:
        values = values[0]
    found["active"] = tuple(i for i, value in enumerate(values) if is_active(value))
    shapes = [shape_of(value) for value in values]
    found |= {"input_shapes": shapes} if known.variadic else {"input_shape": shapes[0]}
    return dict(node.kwargs) | found


def has_shift(node: fx.Node) -> bool:
    """Whether c of a node's affine form is not 0."""
    shift, tells = rule(node).shift, rule(node).has_shift
    if shift is None or tells is None:
        return shift is not None
    return bool(tells(**asked(tells, state(node, {}))))


def marks(part: str, source: fx.Node) -> dict[str, str]:
    """The metadata of a generated node: its part of the program, the forward node it serves."""
    return {keys.PART: part, keys.SOURCE: source.name}


def written_out(
    node: fx.Node, function: Function, args: Iterable[Any], kwargs: Mapping[str, Any]
) -> fx.Node:
    """What a function of nodes does, in front of a traced node; the last has that one's site."""
    graph, before = node.graph, set(node.graph.nodes)
    tracer = fx.proxy.GraphAppendingTracer(graph)
    with graph.inserting_before(node):
        given: Any = tree_map_only(fx.Node, tracer.proxy, (list(args), dict(kwargs)))
        result: fx.Node = function(*given[0], **given[1]).node
    for made in set(graph.nodes) - before:
        made.meta = dict(node.meta)
        if made is not result:
            made.meta[keys.SITE] = f"{node.meta.get(keys.SITE)}.{made.name}"
    return result


def is_constant(node: fx.Node) -> bool:
    """Whether a node is a tensor that the compiler knows: a parameter or a folded result."""
    return node.op == "get_attr"


def attribute(gm: nn.Module, target: str) -> Any:
    """The attribute at a dotted path."""
    return operator.attrgetter(target)(gm)


def resolve(argument: Any, gm: fx.GraphModule) -> Any:
    """An argument with the tensors of its constant nodes; None: it holds other nodes, too."""
    if not all(map(is_constant, uses(argument))):
        return None
    return map_arg(argument, lambda node: attribute(gm, str(node.target)))


def uses(argument: Argument) -> list[fx.Node]:
    """The nodes in an argument."""
    found: list[fx.Node] = []
    map_arg(argument, found.append)
    return found


def convolves(node: fx.Node) -> bool:
    """Whether a node is a convolution of some kind."""
    known = rule_of(node)
    return known is not None and known.convolves


def is_spatial(node: fx.Node) -> bool:
    """Whether a node still has a batch with space: the cascade runs through it."""
    batch = -1 in node.meta.get(keys.SHAPE, ())  # a score of one sample drops it
    return batch and any(label in "SsT" for label in node.meta.get(keys.LABELS, ()))


def is_site_shaped(labels: Labels) -> bool:
    """Whether the dimensions are batch, in front, channel and space, each tracked."""
    once = labels.count(BATCH) == labels.count(CHANNEL) == 1
    return once and labels[0] == BATCH and set(labels) == {BATCH, CHANNEL, SPACE}
