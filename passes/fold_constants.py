"""fold_constants: what depends on parameters alone is computed once, at compile time."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_aggregate, map_arg

from naflow_fx import keys
from naflow_fx.passes import _graph, _module
from naflow_fx.solver.least_squares import solver_dtype

Constants = dict[fx.Node, Any]


def fold_constants(gm: fx.GraphModule) -> fx.GraphModule:
    """Nodes whose inputs are all constants become constants (buffers) themselves.

    Before: any graph.  After: the same values; `keys.CAPTURES` may name constants, `keys.SIGMA` is
    a number where it named one.
    """
    new = _module.copy(gm)
    folded: Constants = {}
    for node in list(new.graph.nodes):
        if node.op in ("call_function", "call_module") and _is_constant(node, folded):
            folded[node] = _evaluate(new, node, folded)
    sigmas = {node.name: value for node, value in folded.items()}
    for node in new.graph.nodes:
        if node.meta.get(keys.SIGMA) in sigmas:
            node.meta[keys.SIGMA] = float(sigmas[node.meta[keys.SIGMA]])
    like = next((b for b in new.buffers() if b.is_floating_point()), torch.empty(()))
    for node, value in folded.items():
        _replace(new, node, map_aggregate(value, lambda x: _settle(x, like)), folded)
    for node in reversed(folded):
        if not node.users:
            new.graph.erase_node(node)
    new.delete_all_unused_submodules()
    return _module.rewritten(new)


def _is_constant(node: fx.Node, folded: Constants) -> bool:
    inputs = node.all_input_nodes
    return (
        bool(inputs)
        and all(n.op == "get_attr" or n in folded for n in inputs)
        or (not inputs and node.meta.get(keys.PART) == "capture")
    )


def _evaluate(gm: fx.GraphModule, node: fx.Node, folded: Constants) -> Any:
    def value(n: fx.Node) -> Any:
        return folded[n] if n in folded else _graph.attribute(gm, str(n.target))

    args, kwargs = map_arg(node.args, value), map_arg(node.kwargs, value)
    with torch.no_grad():
        if node.op == "call_module":
            return _graph.attribute(gm, str(node.target))(*args, **kwargs)
        assert callable(node.target)
        return node.target(*args, **kwargs)


def _settle(x: Any, like: Tensor) -> Any:
    """A result on the model's device; double precision was for its making only."""
    if not isinstance(x, Tensor):
        return x
    dtype = solver_dtype(like.dtype) if x.dtype == torch.float64 else x.dtype
    return x.to(like.device, dtype).contiguous()


def _replace(gm: fx.GraphModule, node: fx.Node, value: Any, folded: Constants) -> None:
    """Readers of a folded node read its value: constants, in the nesting that it had."""
    readers = [user for user in node.users if user not in folded]
    owners = [n for n in gm.graph.nodes if node.name in n.meta.get(keys.CAPTURES, {}).values()]
    if not readers and not owners:
        return
    count = itertools.count()

    def constant(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        suffix = f"_{next(count)}" if isinstance(value, (list, tuple)) else ""
        name = f"folded_{node.name}{suffix}"
        gm.register_buffer(name, x)
        with gm.graph.inserting_before(node):
            made = gm.graph.create_node("get_attr", name, name=name)
        made.meta |= {k: v for k, v in node.meta.items() if k not in _OF_OPERATORS}
        return made

    new = map_aggregate(value, constant)
    for user in readers:
        user.args = map_arg(user.args, lambda n: new if n is node else n)
        user.kwargs = map_arg(user.kwargs, lambda n: new if n is node else n)
    for owner in owners:
        named = map_aggregate(new, lambda x: x.name if isinstance(x, fx.Node) else x)
        captures = owner.meta[keys.CAPTURES]
        owner.meta[keys.CAPTURES] = {
            key: named if name == node.name else name for key, name in captures.items()
        }


_OF_OPERATORS = (keys.RULE, keys.CAPTURES, keys.ACTIVE)
