"""build_importance: Lambda = d score / d x at every node, by the chain rule, as graph nodes."""

from __future__ import annotations

import operator

import torch
from torch import fx

from naflow_fx import keys
from naflow_fx.errors import GraphError
from naflow_fx.passes import _graph, _module
from naflow_fx.passes._reverse import walk_back
from naflow_fx.passes._write import Writer
from naflow_fx.passes.find_flow import score_of, sites_of
from naflow_fx.rules.contract import Rule


def build_importance(gm: fx.GraphModule) -> fx.GraphModule:
    """Adds the importance graph: one `vjp` node per operator, from the score back (Eq. 15).

    Before: a canonical graph with captures.  After: `keys.IMPORTANCE` names, at every active
    node that reaches the score, the node that holds Lambda.  No autograd; the full derivative,
    gates and normalisation included (docs/method.md 5).
    """
    new = _module.copy(gm)
    write = Importance(new.graph, "importance")
    score = score_of(new.graph)
    with new.graph.inserting_before(new.graph.output_node()):
        seed = write.call(score, torch.ones_like, (score,), "importance")
        active = [n for n in new.graph.nodes if n.meta.get(keys.ACTIVE)]
        walk_back(active, {score: seed}, write.total, write.back)
    return new


class Importance(Writer):
    """Writes what importance an operator gives to its operands; decomposition does the same."""

    def total(self, node: fx.Node, parts: list[fx.Node]) -> fx.Node:
        """Lambda of a node: the sum of what its readers sent."""
        total = parts[0]
        for i, part in enumerate(parts[1:], 2):
            # unmarked, so that sums are made where their parts are: they hold less than these
            name = f"{node.name}_importance" + ("" if i == len(parts) else f"_{i}")
            total = self.graph.create_node("call_function", operator.add, (total, part), name=name)
        total.meta |= _graph.marks(self.part, node)
        node.meta[keys.IMPORTANCE] = total.name
        return total

    def back(self, node: fx.Node, total: fx.Node) -> list[tuple[fx.Node, fx.Node]]:
        """The vector-Jacobian product of a node, for each operand that is no constant."""
        rule = _graph.rule_of(node)
        if rule is None:
            return []
        receivers, several = _differentiable(node), _has_several(rule)
        first = None if several else receivers[0]
        of, word = (node, "vjp") if first is None else (first, _word(first, node))
        called = self.ask(node, rule.vjp or rule.transpose, (total,), word, of)
        if not several:
            return [(x, called) for x in receivers if x is not None]
        return [
            (x, self.call(x, operator.getitem, (called, i), _word(x, node)))
            for i, x in enumerate(receivers)
            if x is not None
        ]


def _word(operand: fx.Node, user: fx.Node) -> str:
    """What a part of Lambda is called: with the user's name where several users send one."""
    users = [u for u in operand.users if keys.RULE in u.meta]
    return "importance" if len(users) == 1 else f"importance_from_{user.name}"


def _has_several(rule: Rule) -> bool:
    """Whether its vjp has a result for each operand."""
    return rule.variadic or (rule.vjp is not None and len(rule.operands) > 1)


def _differentiable(node: fx.Node) -> list[fx.Node | None]:
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
