"""What operators share that put the same numbers in other places: A^+ = A^T, f itself is A."""

from __future__ import annotations

from typing import Any

from naflow_fx.rules.contract import Function, Rule


def rearrangement(name: str, forward: Function, back: Function, **others: Any) -> Rule:
    """The rule of y = f(x) with ``back`` as f^-1: every number of x is once in y."""
    return Rule(name, forward, forward, back, back, gating="carries", equation="exact", **others)
