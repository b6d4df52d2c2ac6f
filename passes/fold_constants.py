"""fold_constants: what depends on parameters alone is computed once, at compile time."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_aggregate, map_arg

from naflow_fx import keys
from naflow_fx.passes import _module
from naflow_fx.solver.least_squares import solver_dtype

Constants = dict[fx.Node, Any]


def fold_constants(gm: fx.GraphModule) -> fx.GraphModule:
    """Nodes whose inputs are all constants become constants (buffers) themselves.

    Before: any graph.  After: the same values; `keys.CAPTURES` may name constants, `keys.SIGMA` is
    a number where it named one.
    """
    new = _module.copy(gm)
    run = fx.Interpreter(new, garbage_collect_values=False)
    with torch.no_grad():
        for node in new.graph.nodes:
            if node.op == "get_attr" or _is_constant(node, run.env):
                run.env[node] = run.run_node(node)
    folded: Constants = {n: value for n, value in run.env.items() if n.op != "get_attr"}
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
    return new


def _is_constant(node: fx.Node, known: Constants) -> bool:
    """Whether a call's inputs are all known; a capture may have none."""
    if node.op not in ("call_function", "call_module"):
        return False
    inputs = node.all_input_nodes
    return all(n in known for n in inputs) and bool(inputs or node.meta.get(keys.PART) == "capture")


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
