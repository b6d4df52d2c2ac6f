"""What an operator does to the batch: whether it keeps images apart, whether it regroups rows."""

from __future__ import annotations

import math

from torch import fx

from naflow_fx import keys
from naflow_fx.passes import _graph
from naflow_fx.rules.contract import Arguments, Rule

_OVER = "computed over the batch dimension"


def mixes(rule: Rule, kwargs: Arguments, shape: tuple[int, ...]) -> str:
    """What a call with a result of `shape` does to the batch, in words; "": it keeps it."""
    operands = map(_graph.shape_of, _graph.uses(kwargs[rule.operands[0]]))
    batches = [(d, len(own)) for own in operands for d, size in enumerate(own) if size == -1]
    words = next(filter(None, (_mixed(rule, kwargs, at, rank) for at, rank in batches)), "")
    if batches and -1 not in shape:  # contracted, as a product of matrices does
        words = words or _OVER
    return words or ("the images of the batch are paired" if shape.count(-1) > 1 else "")


def _mixed(rule: Rule, kwargs: Arguments, at: int, rank: int) -> str:
    """The same of an operand whose dimension `at` of `rank` is a batch."""
    if rule.mixes is not None:
        return str(rule.mixes(**_graph.asked(rule.mixes, {**kwargs, "at": at, "rank": rank})))
    dims = kwargs.get("dim", kwargs.get("dims"))
    dims = (dims,) if isinstance(dims, int) else dims or ()
    return _OVER if at in {d % rank for d in dims} else ""


def merges_batch(node: fx.Node) -> bool:
    """Whether a reshape puts other dimensions into the batch, or takes them out again."""
    before = _graph.state(node, {}).get("input_shape", ())
    after = node.meta[keys.SHAPE]
    return _graph.rule(node).regroups and math.prod(before[1:]) != math.prod(after[1:])
