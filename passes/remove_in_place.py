"""remove_in_place: what an in-place operator overwrote is read as its result from then on."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import fx

from naflow_fx.passes import _graph, _module
from naflow_fx.rules import hold, identity

IN_PLACE = ("iadd", "imul", "isub", "itruediv", "ipow")
COPIES = (torch.clone, "clone", torch.ops.aten.clone.default)  # identities that copy


def remove_in_place(gm: fx.GraphModule) -> fx.GraphModule:
    """Later readers of an overwritten tensor read the in-place operator's node.

    Before: a traced graph, where `relu_(x)`, `ReLU(inplace=True)(x)` and `x += y` leave x
    changed for those who read it afterwards.  After: the same results with no node depending on
    being overwritten.  Left alone: views of an overwritten tensor (the check that compares the
    compiled output with the model's own finds those).
    """
    new = _module.copy(gm)
    for node in list(new.graph.nodes):
        written = overwritten(new, node)
        if written is not None:
            for source in _aliases(new, written, node):
                source.replace_all_uses_with(node, delete_user_cb=node.__lt__)  # of later readers
    return new


def overwritten(gm: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The node whose tensor this node writes over."""
    if not node.args or not isinstance(node.args[0], fx.Node):
        return None
    module = _graph.module_of(gm, node)
    if module is not None:
        in_place = getattr(module, "inplace", False) is True
    else:
        in_place = _is_in_place(node) or _asks_in_place(node)
    return node.args[0] if in_place else None


def _is_in_place(node: fx.Node) -> bool:
    name = _graph.operator_name(node)
    return (name.endswith("_") and not name.endswith("__")) or name in IN_PLACE


def _asks_in_place(node: fx.Node) -> bool:
    """Whether a function is told `inplace=True`, by name or by position."""
    target: Any = node.target
    try:
        given = inspect.signature(target).bind(*node.args, **node.kwargs).arguments
    except (TypeError, ValueError):  # a method's name, or a builtin without a signature
        given = node.kwargs
    return given.get("inplace") is True


def _aliases(gm: fx.GraphModule, node: fx.Node, before: fx.Node) -> list[fx.Node]:
    """All names of the node's tensor `before` another, in order: identities return their input."""
    while _hands_on(gm, node):
        node = node.args[0]  # type: ignore[assignment]
    found = [node]
    for other in gm.graph.nodes:
        if other < before and other.args and other.args[0] in found and _hands_on(gm, other):
            found.append(other)
    return found


def _hands_on(gm: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node returns its first argument itself, neither a result nor a copy."""
    if not node.args or not isinstance(node.args[0], fx.Node) or node.target in COPIES:
        return False
    found = _graph.claimed(gm, node)
    return found is not None and found[0] in (identity.RULE, hold.RULE)
