"""The rule table: every operator that the compiler knows, from the files named here.

An operator that is not here is an error that names it, never a silent gradient.  Adding one: a
rule in the file of its family, or in a file of its own that is named here, and an entry in the test
cases (docs/operators.md).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from naflow_fx.errors import RuleError
from naflow_fx.rules.contract import Function, Rule


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

    def of_module(self, module: nn.Module) -> tuple[Rule, Function] | None:
        """The rule of a module, and the adapter to its arguments; None: its forward has none."""
        kind = kind_of(module)
        base: Any = next((k for k in kind.__mro__ if k in self.modules), None)
        return self.modules[base] if base and kind.forward is base.forward else None


def kind_of(module: nn.Module) -> type[nn.Module]:
    """The class that wrote a module's forward: torch's parametrised classes stand before it."""
    return type(module).__mro__[1] if is_parametrized(module) else type(module)


FILES = (
    "add", "cat", "choices", "class_score", "compare", "conv", "copies", "gates", "getitem",
    "grid_sample", "hold", "identity", "interpolate", "matrices", "norms", "pad", "pair_side",
    "pools", "products", "rearrangements", "rectifiers", "reductions", "relu", "reshape",
    "softmax", "tangents",
)  # fmt: skip
_MODULES = [importlib.import_module(f"{__name__}.{name}") for name in FILES]
TABLE = RuleTable(r for module in _MODULES for r in vars(module).values() if isinstance(r, Rule))
"""Every `Rule` that one of these files holds."""


def register(rule: Rule) -> Rule:
    """Adds a user's rule to the table, for models compiled from now on.

    Raises:
        RuleError: its name, or an operator that it claims, has a rule.
    """
    TABLE.add(rule)
    return rule
