"""insert_captures: what the cascade needs of the forward pass, stored where it is known."""

from __future__ import annotations

from operator import getitem

from torch import fx
from torch.utils._pytree import tree_leaves

from naflow_fx import keys
from naflow_fx.errors import GraphError
from naflow_fx.passes import _graph, _module


def insert_captures(gm: fx.GraphModule) -> fx.GraphModule:
    """Adds each operator's capture after it: masks, indices, gates, scales.

    Before: a canonical graph.  After: the same, plus nodes that `keys.CAPTURES` names.  Captures
    that depend on parameters alone are folded by `fold_constants`.
    """
    new = _module.copy(gm)
    for node in list(new.graph.nodes):
        rule = _graph.rule_of(node)
        if rule is None or rule.capture is None or not node.meta[keys.ACTIVE]:
            continue
        with new.graph.inserting_after(node):
            name = f"{node.name}_{rule.captures[0] if len(rule.captures) == 1 else 'captured'}"
            captured = _graph.call(
                new.graph, rule.capture, (), _graph.state(node, {}), name,
                **{keys.PART: "capture", keys.SOURCE: node.name},
            )  # fmt: skip
        node.meta[keys.CAPTURES] = _unpack(new.graph, node, captured, rule.captures)
    return new


def _unpack(
    graph: fx.Graph, node: fx.Node, captured: fx.Node, names: tuple[str, ...]
) -> dict[str, str]:
    if len(names) == 1:
        return {names[0]: captured.name}
    found = {}
    after = captured
    for i, name in enumerate(names):
        with graph.inserting_after(after):
            after = graph.create_node(
                "call_function", getitem, (captured, i), {}, name=f"{node.name}_{name}"
            )
        after.meta |= {keys.PART: "capture", keys.SOURCE: node.name}
        found[name] = after.name
    return found


def check_captured(gm: fx.GraphModule) -> None:
    """Every capture that a node names exists."""
    names = _graph.names(gm.graph)
    for node in gm.graph.nodes:
        for capture in node.meta.get(keys.CAPTURES, {}).values():
            for name in tree_leaves(capture):
                if name not in names:
                    raise GraphError(f"{node.name}: capture {name} is not in the graph")
