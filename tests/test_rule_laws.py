"""Every rule of the table keeps every law at every case; a rule broken on purpose does not."""

from __future__ import annotations

import pytest
from rule_cases import CASES

from naflow_fx.checking import LAWS, Case, check_law, check_rule
from naflow_fx.rule import Rule
from naflow_fx.rules import TABLE

ALL = [
    pytest.param(rule, case, law, id=f"{rule.name}-{case.id}-{law}")
    for rule in TABLE
    for case in CASES.get(rule.name, ())
    for law in LAWS
    if LAWS[law].applies(rule)
]


def test_every_rule_has_cases() -> None:
    assert set(CASES) == set(TABLE.rules)
    for name, cases in CASES.items():
        assert cases, name
        assert len({case.id for case in cases}) == len(cases), name


@pytest.mark.parametrize(("rule", "case", "law"), ALL)
def test_rule_keeps_law(rule: Rule, case: Case, law: str) -> None:
    assert check_law(rule, case, law) == []
