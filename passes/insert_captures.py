"""insert_captures: what the cascade needs of the forward pass, stored where it is known."""

from __future__ import annotations

import operator

from torch import fx
from torch.utils._pytree import tree_leaves

from naflow_fx import keys
from naflow_fx.errors import GraphError
from naflow_fx.passes import _graph, _module
from naflow_fx.passes._write import Writer


def insert_captures(gm: fx.GraphModule) -> fx.GraphModule:
    """Adds each operator's capture after it: masks, indices, gates, scales.

    Before: a canonical graph.  After: the same, plus nodes that `keys.CAPTURES` names.  Captures
    that depend on parameters alone are folded by `fold_constants`.
    """
    new = _module.copy(gm)
    write = Writer(new.graph, "capture")
    for node in list(new.graph.nodes):
        rule = _graph.rule_of(node)
        if rule is None or rule.capture is None or not node.meta[keys.ACTIVE]:
            continue
        single = len(rule.captures) == 1
        with new.graph.inserting_before(node.next):
            made = [write.ask(node, rule.capture, (), rule.captures[0] if single else "captured")]
            if not single:
                made += [
                    write.call(node, operator.getitem, (made[0], i), name)
                    for i, name in enumerate(rule.captures)
                ]
        named = zip(rule.captures, made[-len(rule.captures) :], strict=True)
        node.meta[keys.CAPTURES] = {name: captured.name for name, captured in named}
    return new


def check_captured(gm: fx.GraphModule) -> None:
    """Every capture that a node names exists."""
    names = _graph.names(gm.graph)
    for node in gm.graph.nodes:
        for name in tree_leaves(node.meta.get(keys.CAPTURES, {})):
            if name not in names:
                raise GraphError(f"{node.name}: capture {name} is not in the graph")
