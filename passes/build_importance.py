"""build_importance: Lambda = d score / d x at every node, by the chain rule, as graph nodes."""

from __future__ import annotations

import operator
from collections.abc import Iterator

import torch
from torch import fx

from naflow_fx import keys
from naflow_fx.errors import GraphError
from naflow_fx.passes import _graph, _module
from naflow_fx.passes._reverse import item, walk_back
from naflow_fx.passes.find_flow import score_of, sites_of
from naflow_fx.rules.contract import Rule


def build_importance(gm: fx.GraphModule) -> fx.GraphModule:
    """Adds the importance graph: one `vjp` node per operator, from the score back (Eq. 15).

    Before: a canonical graph with captures.  After: `keys.IMPORTANCE` names, at every active
    node that reaches the score, the node that holds Lambda.  No autograd; the full derivative,
    gates and normalisation included (docs/method.md 5).
    """
    new = _module.copy(gm)
    writer = _Importance(new.graph)
    score = score_of(new.graph)
    with new.graph.inserting_before(new.graph.output_node()):
        seed = new.graph.create_node(
            "call_function", torch.ones_like, (score,), name=f"{score.name}_importance"
        )
        active = [n for n in new.graph.nodes if n.meta.get(keys.ACTIVE)]
        walk_back(active, {score: seed}, writer.total, writer.back)
    return new


class _Importance:
    def __init__(self, graph: fx.Graph) -> None:
        self.graph, self.names = graph, _graph.names(graph)

    def total(self, node: fx.Node, parts: list[fx.Node]) -> fx.Node:
        """Lambda of a node: the sum of what its readers sent."""
        total = parts[0]
        for i, part in enumerate(parts[1:], 2):
            name = f"{node.name}_importance" + ("" if i == len(parts) else f"_{i}")
            total = self.graph.create_node(
                "call_function", operator.add, (total, part), {}, name=name
            )
        total.meta |= _graph.marks("importance", node)
        node.meta[keys.IMPORTANCE] = total.name
        return total

    def back(self, node: fx.Node, total: fx.Node) -> Iterator[tuple[fx.Node, fx.Node]]:
        """The vector-Jacobian product of a node, for each operand."""
        rule = _graph.rule_of(node)
        if rule is None:
            return
        receivers, several = differentiable(node), has_several(rule)
        name = f"{node.name}_vjp" if several else _part_name(receivers[0], node)
        state = _graph.state(node, self.names)
        marks = _graph.marks("importance", node)
        called = _graph.call(self.graph, rule.vjp or rule.transpose, (total,), state, name, **marks)
        for index, operand in enumerate(receivers):
            if operand is None:
                continue
            part = called
            if several:
                part = item(self.graph, called, index, _part_name(operand, node))
                part.meta |= _graph.marks("importance", operand)
            yield operand, part


def _part_name(operand: fx.Node | None, user: fx.Node) -> str:
    """`x_importance` where only one user passes something back to x, else with that user's name."""
    if operand is None:
        return f"{user.name}_vjp"
    users = [u for u in operand.users if keys.RULE in u.meta]
    return f"{operand.name}_importance" + ("" if len(users) == 1 else f"_from_{user.name}")


def has_several(rule: Rule) -> bool:
    """Whether its vjp has a result for each operand."""
    return rule.variadic or (rule.vjp is not None and len(rule.operands) > 1)


def differentiable(node: fx.Node) -> list[fx.Node | None]:
    """One entry per result of the vjp: the operand that it belongs to, None for a constant."""
    rule = _graph.rule(node)
    if rule.variadic:
        return [*_graph.operands(node)]
    values = [node.kwargs.get(name) for name in rule.operands]
    return [v if isinstance(v, fx.Node) and _graph.is_active(v) else None for v in values]


def check_importance(gm: fx.GraphModule) -> None:
    """Every call site has Lambda, of its own shape's rank."""
    names = _graph.names(gm.graph)
    for node in sites_of(gm.graph).values():
        if node.meta.get(keys.IMPORTANCE) not in names:
            raise GraphError(f"{node.name}: no importance was built")
