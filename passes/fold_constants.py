"""fold_constants: what depends on parameters alone is computed once, at compile time."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_aggregate, map_arg
from torch.utils._pytree import tree_leaves

from naflow_fx import keys
from naflow_fx.passes import _module
from naflow_fx.solver.least_squares import solver_dtype

Constants = dict[fx.Node, Any]


def fold_constants(gm: fx.GraphModule) -> fx.GraphModule:
    """Nodes whose inputs are all constants become constants (buffers) themselves.

    Before: any graph.  After: the same values; `keys.CAPTURES` may name constants, a step's sigma
    is a number where it named one.
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
        step = node.meta.get(keys.STEP)
        if step is not None and step.sigma in sigmas:
            node.meta[keys.STEP] = replace(step, sigma=float(sigmas[step.sigma]))
    like = next((b for b in new.buffers() if b.is_floating_point()), torch.empty(()))
    captured = set(tree_leaves([node.meta.get(keys.CAPTURES, {}) for node in new.graph.nodes]))
    made: Constants = {}
    for node, value in folded.items():
        if node.name in captured or any(user not in folded for user in node.users):
            made[node] = _constants(new, node, value, like)
    _put(new.graph, made, folded)
    for node in reversed(folded):
        if not node.users:
            new.graph.erase_node(node)
    new.delete_all_unused_submodules()
    return new


def _put(graph: fx.Graph, made: Constants, folded: Constants) -> None:
    """Who reads folded nodes, and captures that name them, get what was made of them."""
    for user in dict.fromkeys(user for node in made for user in node.users if user not in folded):
        user.args = map_arg(user.args, lambda n: made.get(n, n))
        user.kwargs = map_arg(user.kwargs, lambda n: made.get(n, n))
    names = {node.name: map_arg(constant, lambda n: n.name) for node, constant in made.items()}
    for node in graph.nodes:
        if keys.CAPTURES in node.meta:
            own = node.meta[keys.CAPTURES]
            node.meta[keys.CAPTURES] = {key: names.get(name, name) for key, name in own.items()}


def _is_constant(node: fx.Node, known: Constants) -> bool:
    """Whether a call's inputs are all known; a capture may have none."""
    if node.op not in ("call_function", "call_module"):
        return False
    inputs = node.all_input_nodes
    return all(n in known for n in inputs) and bool(inputs or node.meta.get(keys.PART) == "capture")


def _constants(gm: fx.GraphModule, node: fx.Node, value: Any, like: Tensor) -> Any:
    """A folded node's value as constants of the graph, in the nesting that it has.

    They are on the device of `like`; double precision was for their making only.
    """
    count = itertools.count()

    def constant(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        suffix = f"_{next(count)}" if isinstance(value, (list, tuple)) else ""
        name = f"folded_{node.name}{suffix}"
        dtype = solver_dtype(like.dtype) if x.dtype == torch.float64 else x.dtype
        gm.register_buffer(name, x.to(like.device, dtype).contiguous())
        with gm.graph.inserting_before(node):
            made = gm.graph.create_node("get_attr", name, name=name)
        made.meta |= {k: v for k, v in node.meta.items() if k not in _OF_OPERATORS}
        return made

    return map_aggregate(value, constant)


_OF_OPERATORS = (keys.RULE, keys.CAPTURES, keys.ACTIVE)
