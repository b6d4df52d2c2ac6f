"""The rule table: every operator that the compiler knows, one line each.

An operator that is not here is an error that names it, never a silent gradient.  Adding one:
a file beside this one, a line here, an entry in the test cases (README, "Add an operator").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from naflow_fx.errors import RuleError
from naflow_fx.rule import Function, Rule
from naflow_fx.rules import (
    add,
    avg_pool,
    batch_norm,
    cat,
    class_score,
    conv,
    flat_cat,
    getitem,
    hardtanh,
    identity,
    leaky_relu,
    linear,
    max_pool,
    mean,
    mul,
    pad,
    permute,
    relu,
    reshape,
    sigmoid,
)


class RuleTable:
    """Rules by name, by what they replace in a traced graph, and by their canonical form."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules: dict[str, Rule] = {}
        self.targets: dict[Any, tuple[Rule, Function]] = {}
        self.modules: dict[type, tuple[Rule, Function]] = {}
        self.forwards: dict[Function, Rule] = {}
        for rule in rules:
            self.add(rule)

    def __iter__(self) -> Iterator[Rule]:
        return iter(self.rules.values())

    def add(self, rule: Rule) -> None:
        """Adds a rule.

        Raises:
            RuleError: its name, or an operator that it claims, is taken.
        """
        taken = [str(t) for t in rule.targets if t in self.targets]
        taken += [t.__name__ for t in rule.modules if t in self.modules]
        if rule.name in self.rules or taken:
            raise RuleError(f"rule {rule.name!r}: already in the table: {taken or rule.name}")
        self.rules[rule.name] = rule
        self.forwards[rule.forward] = rule
        self.targets |= {target: (rule, adapter) for target, adapter in rule.targets.items()}
        self.modules |= {kind: (rule, adapter) for kind, adapter in rule.modules.items()}


TABLE = RuleTable(
    [
        add.RULE,
        avg_pool.RULE,
        batch_norm.RULE,
        cat.RULE,
        class_score.RULE,
        conv.RULE,
        flat_cat.RULE,
        getitem.RULE,
        hardtanh.RULE,
        identity.RULE,
        leaky_relu.RULE,
        linear.RULE,
        max_pool.RULE,
        mean.RULE,
        mul.RULE,
        pad.RULE,
        permute.RULE,
        relu.RULE,
        reshape.RULE,
        sigmoid.RULE,
    ]
)
