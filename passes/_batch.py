"""Operators that mix the images of a batch, told from their dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import fx

from naflow_fx import keys
from naflow_fx.rule import Rule

_MOVES = {"permute", "movedim"}


def batch_mixer(rule: Rule, kwargs: Mapping[str, Any]) -> str:
    """What a call of a rule does to its first operand's batch dimension; empty: it keeps it."""
    operand = kwargs[rule.operands[0]]
    operand = operand[0] if isinstance(operand, (list, tuple)) and operand else operand
    shape = operand.meta.get(keys.SHAPE, ()) if isinstance(operand, fx.Node) else ()
    if -1 not in shape or rule.name in _MOVES:
        return ""
    if rule.name == "getitem":
        kept = _is_whole(_item(kwargs["index"], shape.index(-1)))
        return "" if kept else "images are picked out of the batch"
    dims = kwargs.get("dim", kwargs.get("dims"))
    dims = (dims,) if isinstance(dims, int) else dims or ()
    if shape.index(-1) not in {d % len(shape) for d in dims}:
        return ""
    return "images are joined or split along the batch" if rule.name in ("cat", "split") else (
        "computed over the batch dimension")  # fmt: skip


def _is_whole(item: Any) -> bool:
    """Whether a slice takes all of a dimension, as torch.export writes it, too."""
    if not isinstance(item, slice) or item.step not in (None, 1):
        return False
    return item.start in (None, 0) and (item.stop is None or item.stop >= 2**31 - 1)


def _item(index: Any, dim: int) -> Any:
    """What an index takes of a dimension; those behind an ellipsis are whole or counted back."""
    items = index if isinstance(index, tuple) else (index,)
    items = items[: items.index(Ellipsis)] if Ellipsis in items else items
    taken = [item for item in items if item is not None]
    return taken[dim] if dim < len(taken) else slice(None)
