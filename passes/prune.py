"""prune: removes the nodes, constants and modules that no result needs."""

from __future__ import annotations

from torch import fx

from naflow_fx.errors import GraphError
from naflow_fx.passes import _module


def prune(gm: fx.GraphModule) -> fx.GraphModule:
    """Removes dead nodes, unused constants and modules.

    Before: any graph.  After: every node reaches the output; inputs stay.
    """
    new = _module.copy(gm)
    new.graph.eliminate_dead_code()
    return _module.rebuild(new, new.graph)


def check_outputs(gm: fx.GraphModule) -> None:
    """The graph is sound and nothing in it is dead."""
    gm.graph.lint()
    for node in gm.graph.nodes:
        if not node.users and node.op not in ("placeholder", "output"):
            raise GraphError(f"{node.name}: nothing reads it")
