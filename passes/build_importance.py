"""build_importance: Lambda = d score / d x at every node, by the chain rule, as graph nodes."""

from __future__ import annotations

import operator

import torch
from torch import fx

from naflow_fx import keys
from naflow_fx.errors import GraphError
from naflow_fx.passes import _graph
from naflow_fx.passes.find_flow import find_flow, score_of


def build_importance(gm: fx.GraphModule) -> fx.GraphModule:
    """Adds the importance graph: one `vjp` node per operator, from the score back (Eq. 15).

    Before: a canonical graph with captures.  After: `keys.IMPORTANCE` names, at every active
    node that reaches the score, the node that holds Lambda.  No autograd; the full derivative,
    gates and normalisation included (docs/method.md 5).
    """
    new = _graph.copy(gm)
    names = _graph.names(new.graph)
    score = score_of(new.graph)
    forward = [n for n in new.graph.nodes if n.meta.get(keys.ACTIVE)]
    parts: dict[fx.Node, list[fx.Node]] = {}
    with new.graph.inserting_before(_graph.output_node(new.graph)):
        seed = new.graph.create_node(
            "call_function", torch.ones_like, (score,), name=f"{score.name}_importance"
        )
        parts[score] = [seed]
        for node in reversed(forward):
            if node in parts:
                _back(new.graph, node, parts, names)
    return _graph.rebuild(new, new.graph)


def _back(
    graph: fx.Graph,
    node: fx.Node,
    parts: dict[fx.Node, list[fx.Node]],
    names: dict[str, fx.Node],
) -> None:
    """Sums what came to `node`, and passes it on to its operands."""
    total = _sum(graph, node, parts[node])
    node.meta[keys.IMPORTANCE] = total.name
    rule = _graph.rule_of(node)
    if rule is None:
        return
    receivers = differentiable(node)
    several = rule.variadic or (rule.vjp is not None and len(rule.operands) > 1)
    name = f"{node.name}_vjp" if several else _part_name(receivers[0], node, parts)
    state = _graph.state(node, names)
    called = _graph.call(graph, rule.vjp or rule.transpose, (total,), state, name)
    _mark(called, node)
    for index, operand in enumerate(receivers):
        if operand is None:
            continue
        part = called
        if several:
            name = _part_name(operand, node, parts)
            part = graph.create_node(
                "call_function", operator.getitem, (called, index), {}, name=name
            )
            _mark(part, operand)
        parts.setdefault(operand, []).append(part)


def _sum(graph: fx.Graph, node: fx.Node, parts: list[fx.Node]) -> fx.Node:
    total = parts[0]
    for i, part in enumerate(parts[1:], 2):
        name = f"{node.name}_importance" + ("" if i == len(parts) else f"_{i}")
        total = graph.create_node("call_function", operator.add, (total, part), {}, name=name)
    _mark(total, node)
    return total


def _part_name(operand: fx.Node | None, user: fx.Node, parts: dict[fx.Node, list[fx.Node]]) -> str:
    """`x_importance` where only one user passes something back to x, else with that user's name."""
    if operand is None:
        return f"{user.name}_vjp"
    users = [u for u in operand.users if keys.RULE in u.meta]
    return f"{operand.name}_importance" + ("" if len(users) == 1 else f"_from_{user.name}")


def differentiable(node: fx.Node) -> list[fx.Node | None]:
    """One entry per result of the vjp: the operand that it belongs to, None for a constant."""
    rule = _graph.rule_of(node)
    assert rule is not None
    if rule.variadic:
        return [*_graph.operands(node)]
    values = [node.kwargs.get(name) for name in rule.operands]
    return [v if isinstance(v, fx.Node) and _graph.is_active(v) else None for v in values]


def _mark(node: fx.Node, source: fx.Node) -> None:
    node.meta |= {keys.PART: "importance", keys.SOURCE: source.name}


def check_importance(gm: fx.GraphModule) -> None:
    """Every call site has Lambda, of its own shape's rank."""
    names = _graph.names(gm.graph)
    for name in find_flow(gm.graph).sites:
        if names[name].meta.get(keys.IMPORTANCE) not in names:
            raise GraphError(f"{name}: no importance was built")
