"""unstack: a stack in front of the batch that is reduced again becomes arithmetic on its parts."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import fx

from naflow_fx.passes import _graph, _module

_COMBINE: dict[str, Callable[[Sequence[Any]], Any]] = {
    "sum": lambda xs: reduce(operator.add, xs),
    "mean": lambda xs: reduce(operator.add, xs) / len(xs),
    "prod": lambda xs: reduce(operator.mul, xs),
    **dict.fromkeys(("amax", "max"), lambda xs: reduce(torch.maximum, xs)),
    **dict.fromkeys(("amin", "min"), lambda xs: reduce(torch.minimum, xs)),
}


def unstack(gm: fx.GraphModule) -> fx.GraphModule:
    """``torch.stack([a, b]).sum(0)`` is ``a + b``; so with mean, prod, max, min and indices.

    Before: a traced graph.  After: the same values; the last new node has the reduction's name.
    Left alone: stacks along other dimensions, or read in another way.
    """
    new = _module.copy(gm)
    for node in list(new.graph.nodes):
        if (
            _graph.operator_name(node) == "stack"
            and _dim(node) == 0
            and isinstance(node.args[0], (list, tuple))
        ):
            for user in list(node.users):
                _rewrite(new.graph, user, list(node.args[0]))
            if not node.users:
                new.graph.erase_node(node)
    return new


def _dim(node: fx.Node) -> Any:
    """The dimension that a call names, 0 for a stack that names none."""
    rest = [*node.args[1:2], *(node.kwargs.get(k) for k in ("dim", "axis") if k in node.kwargs)]
    return (rest or [0 if _graph.operator_name(node) == "stack" else None])[0]


def _rewrite(graph: fx.Graph, user: fx.Node, parts: list[Any]) -> None:
    """One reader of the stack reads its parts instead."""
    if user.target is operator.getitem and isinstance(user.args[1], int):
        user.replace_all_uses_with(parts[user.args[1]])
        graph.erase_node(user)
        return
    combine = _COMBINE.get(_graph.operator_name(user))
    extra = len(user.args) > 2 or set(user.kwargs) - {"dim", "axis"}
    if combine is None or extra or _dim(user) not in (0, (0,), [0]):
        return
    values = [user]
    if _graph.operator_name(user) in ("max", "min"):  # a pair of values and indices: the values
        values = [n for n in user.users if n.args[1:] in ((0,), ("values",))]
        if len(values) < len(user.users):
            return
    made = _graph.written_out(user, combine, [parts], {})
    for value in values:
        value.replace_all_uses_with(made)
    for node in (*values, user):
        if not node.users and node in graph.nodes:
            graph.erase_node(node)
