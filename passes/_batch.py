"""Operators that mix the images of a batch, told from their dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import fx

from naflow_fx import keys
from naflow_fx.rules.contract import Rule, parameters


def batch_mixer(rule: Rule, kwargs: Mapping[str, Any]) -> str:
    """What a call of a rule does to its first operand's batch dimension; empty: it keeps it."""
    operand = kwargs[rule.operands[0]]
    operand = operand[0] if isinstance(operand, (list, tuple)) and operand else operand
    shape = operand.meta.get(keys.SHAPE, ()) if isinstance(operand, fx.Node) else ()
    if -1 not in shape:
        return ""
    offered = {**kwargs, "at": shape.index(-1), "rank": len(shape)}
    if rule.mixes is not None:
        return str(rule.mixes(**{name: offered[name] for name in parameters(rule.mixes)}))
    dims = kwargs.get("dim", kwargs.get("dims"))
    dims = (dims,) if isinstance(dims, int) else dims or ()
    over = offered["at"] in {d % len(shape) for d in dims}
    return "computed over the batch dimension" if over else ""
