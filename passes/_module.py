"""GraphModules of passes: each works on a copy of what it was given."""

from __future__ import annotations

from typing import Any

from torch import fx

from naflow_fx.explanation import Draft, Explanation


def copy(gm: fx.GraphModule) -> fx.GraphModule:
    """A GraphModule with a graph of its own, same node names and metadata, shared tensors."""
    graph = fx.Graph()
    copied: Any = graph.graph_copy(gm.graph, {}, return_output_node=True)
    graph.output(copied[0]).meta = dict(copied[1].meta)
    return rebuild(gm, graph)


def rebuild(
    root: fx.GraphModule | dict[str, Any],
    graph: fx.Graph,
    kind: type[fx.GraphModule] = Draft,
) -> fx.GraphModule:
    """A GraphModule of `graph`, with what it uses of `root` shared."""
    made = kind(root, graph, class_name=kind.__name__)
    if isinstance(root, fx.GraphModule):
        made.meta = dict(root.meta)
    return made


def finished(gm: fx.GraphModule) -> fx.GraphModule:
    """The program of a graph that no pass changes any more."""
    return rebuild(gm, gm.graph, Explanation)
