"""torch.compile takes every function of every rule whole, and gives what it gives."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from rule_cases import CASES

from naflow_fx.rules import TABLE
from naflow_fx.rules.contract import Function, Rule
from naflow_fx.rules.laws import Case
from naflow_fx.rules.laws.point import Point, results

IN_PROGRAMS = ("forward", "capture", "linear", "transpose", "inverse", "vjp", "shift", "support")


def whole(function: Function) -> Function:
    """The same by Dynamo, which may break its graph nowhere; it asks for the same names."""
    compiled = torch.compile(function, fullgraph=True, backend="eager", dynamic=False)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return compiled(*args, **kwargs)

    return call


def check(rule: Rule, cases: Sequence[Case]) -> None:
    functions: Any = {
        name: whole(f) for name in IN_PROGRAMS if (f := getattr(rule, name)) is not None
    }
    for case in cases:
        torch.compiler.reset()
        wanted, found = (Point(r, case) for r in (rule, replace(rule, **functions)))
        v, w = wanted.randoms(1), wanted.random(wanted.output, 2)
        got, given = results(found, v, w), results(wanted, v, w)
        torch.testing.assert_close(got, given, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", ["mean", "var", "amax", "mul", "max_pool", "cat"])
def test_the_functions_of_attention_modules_are_compiled_whole(name: str) -> None:
    check(TABLE.rules[name], CASES[name][:1])


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_function_is_compiled_whole(name: str) -> None:
    check(TABLE.rules[name], CASES[name])
