"""Other ways to Z that `search_maps.py` tries: the program's inverse changed, or the whole tail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import NodePathTracer

import naflow_fx as nf
from naflow_fx import compiler, keys
from naflow_fx import options as opts
from naflow_fx.job import Job
from naflow_fx.krylov import Operator, Problem, bidiagonal_least_squares
from naflow_fx.passes import _graph
from naflow_fx.solve import LeastSquares, importance_weight

TAIL_STEPS = 10
RANGE = 10.0  # between the damping of the first step and that of the last one


def positive(importance: Tensor, z: Tensor) -> Tensor:
    """Z of the neurons that speak for the class, the others abandoned."""
    return z * (importance * z > 0)


def large(importance: Tensor, z: Tensor) -> Tensor:
    """Z of the neurons whose contribution is a tenth of the mean of its size, at least."""
    part = importance * z
    mean = part.abs().mean(tuple(range(1, z.dim())), keepdim=True)
    return z * (part > 0.1 * mean)


def explainer(
    model: nn.Module, x: Tensor, inverse: nf.Inverse, cascade: str, sites: Sequence[str]
) -> nf.Explainer:
    """Channelwise maps, Z and Lambda of some sites, by a changed cascade."""
    options = opts.resolve(inverse=inverse, layers=sites, reduction="channelwise",
                           keep=("bpfm", "importance"))  # fmt: skip
    job = Job(model, (x,), None, opts.on_device(options, x.device))
    run = partial(compiler.run_pipeline, steps=pipeline(cascade))
    return nf.Explainer(run(job), job, run)


def pipeline(cascade: str) -> Any:
    """The compiler's, with a pass after `build_inverse`, or one at its end."""
    steps = compiler.PIPELINE
    after = len(compiler.CAPTURED) + 2
    if cascade in ABANDON:
        abandoning = (lambda gm, job: abandon(gm, ABANDON[cascade]), lambda gm, job: None)
        return (*steps[:after], abandoning, *steps[after:])
    if cascade in ("rising", "falling"):
        return (*steps, (lambda gm, job: damp_by_depth(gm, cascade), lambda gm, job: None))
    return steps


ABANDON: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"positive": positive, "large": large}


def abandon(gm: fx.GraphModule, kept: Callable[[Tensor, Tensor], Tensor]) -> fx.GraphModule:
    """Every Z is cut by its contribution before the next step of the cascade reads it."""
    new = _graph.copy(gm)
    names = _graph.names(new.graph)
    for node in list(new.graph.nodes):
        z = names.get(node.meta.get(keys.BPFM, ""))
        if z is None or z is node or z.meta.get(keys.PART) != "inverse":
            continue
        with new.graph.inserting_after(z):
            importance = names[node.meta[keys.IMPORTANCE]]
            cut = new.graph.call_function(kept, (importance, z))
        cut.meta |= {keys.PART: "inverse", keys.SOURCE: node.name}
        z.replace_all_uses_with(cut, lambda user, cut=cut: user is not cut)
        node.meta[keys.BPFM] = cut.name
    return _graph.rebuild(new, new.graph)


def damp_by_depth(gm: fx.GraphModule, cascade: str) -> fx.GraphModule:
    """Damping from its value at the feature node to `RANGE` times of it at the input, or back."""
    calls = [n.target for n in gm.graph.nodes if n.op == "call_module"]
    solvers = [m for m in map(gm.get_submodule, calls) if isinstance(m, LeastSquares)]
    for k, solver in enumerate(solvers):
        place = k / (len(solvers) - 1)
        solver.damping *= RANGE ** (place if cascade == "rising" else 1 - place)
    return gm


def tail(model: nn.Module, x: Tensor, inverse: nf.Inverse, last: str,
         flow: nf.AttentionFlow) -> dict[str, Tensor]:  # fmt: skip
    """Z of the flow's sites by one least squares of all that follows, to the feature node."""
    program = Forward(model, x)
    weight = importance_weight(flow.importance[last], inverse.clip)
    weight = weight if inverse.weight == "importance" else torch.ones_like(weight)
    found = {}
    for site in flow.maps:
        inner = program.values[program.nodes[site]]
        run = partial(program.tail, site, last)
        linear = torch.func.linearize(run, inner)[1]
        transpose = torch.func.vjp(run, inner)[1]  # type: ignore[no-untyped-call]
        operator = Operator(linear, lambda w, a=transpose: a(w)[0])
        problem = Problem(operator, weight * linear(inner), torch.zeros_like(inner),
                          inverse.damping, TAIL_STEPS, weight)  # fmt: skip
        found[site] = inner if site == last else bidiagonal_least_squares(problem)[0].detach()
    return found


class Forward:
    """The values of all nodes for one photo, and the network from one node to another."""

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        tracer = NodePathTracer()
        graph = tracer.trace(model)
        self.program = fx.GraphModule(model, graph)
        self.nodes = {name: node for node, name in tracer.node_to_qualname.items()}
        run = fx.Interpreter(self.program, garbage_collect_values=False)
        run.run(x)
        self.values = run.env

    def tail(self, site: str, last: str, value: Tensor) -> Tensor:
        """The value of `last` where `site` has another value."""
        order = list(self.program.graph.nodes)
        start, stop = (order.index(self.nodes[name]) for name in (site, last))
        env = {node: self.values[node] for node in order[:start]} | {order[start]: value}
        run = fx.Interpreter(self.program, garbage_collect_values=False)
        run.env = env
        for node in order[start + 1 : stop + 1]:
            run.env[node] = run.run_node(node)
        return run.env[order[stop]]  # type: ignore[no-any-return]
