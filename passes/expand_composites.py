"""expand_composites: operators that are a few others become these."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx

from naflow_fx import keys
from naflow_fx.passes import _graph, _module
from naflow_fx.rules.composites import COMPOSITE_MODULES, COMPOSITES


def expand_composites(gm: fx.GraphModule) -> fx.GraphModule:
    """Calls that `rules.composites` knows are replaced by what their functions do.

    Before: a traced graph.  After: the same values; the last of the new nodes has the call's name
    and site, the others `site.operator`.
    """
    new = _module.copy(gm)
    for node in list(new.graph.nodes):
        found = _composite(new, node)
        if found is not None:
            _expand(new.graph, node, *found)
    return _module.rewritten(new)


def _composite(
    gm: fx.GraphModule, node: fx.Node
) -> tuple[Callable[..., Any], dict[str, Any]] | None:
    """The function that does what a node does, and arguments beyond the node's own."""
    if node.op in ("call_function", "call_method"):
        function = COMPOSITES.get(node.target)
        return None if function is None else (function, {})
    if node.op != "call_module":
        return None
    module = _graph.attribute(gm, str(node.target))
    known = COMPOSITE_MODULES.get(type(module))
    return None if known is None else (known[0], known[1](module))


def _expand(
    graph: fx.Graph, node: fx.Node, function: Callable[..., Any], extra: dict[str, Any]
) -> None:
    before = set(graph.nodes)
    tracer = fx.proxy.GraphAppendingTracer(graph)

    def proxy(n: fx.Node) -> fx.Proxy:
        return fx.Proxy(n, tracer)

    with graph.inserting_before(node):
        args: Any = fx.node.map_arg(node.args, proxy)  # type: ignore[arg-type]
        kwargs: Any = fx.node.map_arg(node.kwargs, proxy)  # type: ignore[arg-type]
        try:
            result = function(*args, **kwargs, **extra).node
        except ValueError:  # a use that the function does not cover: reported as without a rule
            return
    for made in graph.nodes:
        if made not in before:
            made.meta = dict(node.meta)
            made.meta[keys.SITE] = f"{node.meta.get(keys.SITE)}.{made.name}"
    result.meta[keys.SITE] = node.meta.get(keys.SITE)
    node.replace_all_uses_with(result)
    graph.erase_node(node)
