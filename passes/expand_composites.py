"""expand_composites: operators that are a few others become these."""

from __future__ import annotations

from contextlib import suppress

from torch import fx

from naflow_fx.passes import _graph, _module
from naflow_fx.rules._spellings import attributes
from naflow_fx.rules.composites import COMPOSITE_MODULES, COMPOSITES


def expand_composites(gm: fx.GraphModule) -> fx.GraphModule:
    """Calls that `rules.composites` knows are replaced by what their functions do.

    Before: a traced graph.  After: the same values; the last of the new nodes has the call's name
    and site, the others `site.operator`.
    """
    new = _module.copy(gm)
    for node in list(new.graph.nodes):
        module = _graph.module_of(new, node)
        if type(module) in COMPOSITE_MODULES:
            function = COMPOSITE_MODULES[type(module)]
            options = attributes(function)(module)
        elif node.op != "call_module" and node.target in COMPOSITES:
            function, options = COMPOSITES[node.target], {}
        else:
            continue
        with suppress(ValueError):  # a use that it does not cover: reported as without a rule
            made = _graph.written_out(node, function, node.args, node.kwargs | options)
            node.replace_all_uses_with(made)
            new.graph.erase_node(node)
    return new
