"""hold_gradients: what was made under torch.no_grad() is held constant in the derivative."""

from __future__ import annotations

import operator

from torch import fx

from naflow_fx import keys
from naflow_fx.passes import _module
from naflow_fx.passes.annotate_values import TensorValue
from naflow_fx.rules import hold


def hold_gradients(gm: fx.GraphModule) -> fx.GraphModule:
    """Nodes outside of a no_grad block read what it made through `hold`, as autograd does.

    Before: a traced graph with values; `keys.HELD` marks the nodes of such blocks.  After: the
    same values, with a `hold` after each that is read outside.
    """
    new = _module.copy(gm)
    for node in list(new.graph.nodes):
        held = node.meta.get(keys.HELD)
        if held and node.op not in ("placeholder", "get_attr", "output"):
            _hold(new.graph, node)
    return new


def _hold(graph: fx.Graph, node: fx.Node) -> None:
    outside = [user for user in node.users if not user.meta.get(keys.HELD)]
    if not isinstance(node.meta.get(keys.VALUE), TensorValue):
        for user in outside:  # a piece of several results
            user.meta[keys.HELD] = user.target is operator.getitem
        return
    if not outside:
        return
    with graph.inserting_after(node):
        made = graph.call_function(hold.forward, (node,))
    made.meta = {k: v for k, v in node.meta.items() if k != keys.HELD}
    made.meta[keys.SITE] = f"{node.meta.get(keys.SITE)}.detach"
    for user in outside:
        user.replace_input_with(node, made)
