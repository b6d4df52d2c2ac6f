"""prune: what no result needs is gone from the program."""

from __future__ import annotations

from torch import fx

from naflow_fx.passes import _graph


def prune(gm: fx.GraphModule) -> fx.GraphModule:
    """Removes dead nodes, unused constants and modules.

    Before: any graph.  After: every node reaches the output; inputs stay.
    """
    new = _graph.copy(gm)
    new.graph.eliminate_dead_code()
    new.graph.lint()
    return _graph.rebuild(new, new.graph)
