"""`check_rule`: the laws that a rule must keep, tried on example calls in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from naflow_fx.rules.contract import Rule, parameters
from naflow_fx.rules.laws import laws
from naflow_fx.rules.laws.point import Case, Point

__all__ = ["LAWS", "Case", "Law", "check_law", "check_rule"]


def check_rule(rule: Rule, cases: Sequence[Case]) -> list[str]:
    """Tries every law that is for `rule` on every case; what is broken, in words.

    An empty list: nothing found.  Whatever a function of the rule raises is a finding, too.
    """
    if not cases:
        return [f"{rule.name}: no cases"]
    names = [name for name, law in LAWS.items() if law.applies(rule)]
    return [found for case in cases for name in names for found in check_law(rule, case, name)]


def check_law(rule: Rule, case: Case, name: str) -> list[str]:
    """What the law of that name finds at one case."""
    where = f"{rule.name} ({case.id}): {name}"
    try:
        return [f"{where}: {finding}" for finding in LAWS[name].check(Point(rule, case))]
    except Exception as error:
        return [f"{where}: {type(error).__name__}: {error}"]


@dataclass(frozen=True)
class Law:
    """A law, and the rules that it is for, told from their fields."""

    check: Callable[[Point], laws.Findings]
    applies: Callable[[Rule], bool] = lambda rule: True


LAWS: dict[str, Law] = {
    "linear": Law(laws.linear),
    "adjoint": Law(laws.adjoint),
    "masks": Law(laws.masks, lambda rule: bool(rule.captures)),
    "affine": Law(laws.affine),
    "jacobian": Law(laws.jacobian, lambda rule: rule.vjp is None or bool(rule.control)),
    "vjp": Law(laws.vjp),
    "Moore-Penrose": Law(
        laws.moore_penrose,
        lambda rule: bool(rule.inverse) and not rule.variadic and not rule.function_inverse,
    ),
    "damped": Law(
        laws.damped, lambda rule: rule.inverse is not None and "damping" in parameters(rule.inverse)
    ),
    "remainder": Law(laws.remainder, lambda rule: rule.inverse is not None and rule.variadic),
    "function inverse": Law(laws.function_inverse, lambda rule: rule.function_inverse),
    "support": Law(laws.support),
    "diagonal": Law(laws.diagonal, lambda rule: rule.diagonal is not None),
    "off": Law(laws.off, lambda rule: rule.off is not None),
    "scaled": Law(laws.scaled, lambda rule: rule.scaled is not None),
    "groups": Law(laws.groups, lambda rule: rule.groups is not None),
    "batch": Law(laws.batch),
    "dtype": Law(laws.dtype),
    "labels": Law(laws.labels),
    "pure": Law(laws.pure),
}
