"""add_score: what is explained, appended to the model's graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, fx, nn

from naflow_fx import keys
from naflow_fx.errors import TargetError
from naflow_fx.passes import _graph
from naflow_fx.passes.trace import PathTracer
from naflow_fx.rules import class_score

OUTPUT, SCORE = "output", "score"
OWN = "target_callable"  # the submodule that holds the tensors of a callable target


def add_score(gm: fx.GraphModule, target: Callable[..., Tensor] | None) -> fx.GraphModule:
    """The output becomes ``{"output": the model's own, "score": [N]}``.

    Before: a traced graph.  After: with `target` None a second input, `target` int64 [N], and
    the logit of that class (-1: the largest); else what the callable makes of the model's
    output, traced into the same graph.

    Raises:
        TargetError: the callable can't be traced.
    """
    new = _graph.copy(gm)
    end = _graph.output_node(new.graph)
    result: Any = end.args[0]
    with new.graph.inserting_before(end):
        score = _class(new, result) if target is None else _callable(new, result, target)
        new.graph.output({OUTPUT: result, SCORE: score})
    new.graph.erase_node(end)
    return _graph.rebuild(new, new.graph)


def _class(gm: fx.GraphModule, result: Any) -> fx.Node:
    if not isinstance(result, fx.Node):
        raise TargetError(
            f"target: the model returns a {type(result).__name__}, not one tensor [N, classes]; "
            "give nf.compile a target= that makes one number per sample of it"
        )
    last_input = [node for node in gm.graph.nodes if node.op == "placeholder"][-1]
    with gm.graph.inserting_after(last_input):
        classes = gm.graph.placeholder("target")
    score = gm.graph.call_function(class_score.forward, (result, classes))
    for node, site in ((classes, "target"), (score, SCORE)):
        node.meta[keys.SITE] = site
    return score


class _Target(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, output: Any) -> Tensor:
        return self.function(output)


def _callable(gm: fx.GraphModule, result: Any, target: Callable[..., Tensor]) -> fx.Node:
    root = _Target(target)
    try:
        graph = PathTracer().trace(root)
    except Exception as error:
        raise TargetError(
            f"target: the callable {target!r} can't be traced: {error}\n  It takes the model's "
            "output and returns one number per sample, [N], without control flow on tensors."
        ) from error
    gm.add_submodule(OWN, fx.GraphModule(root, graph))
    for node in graph.nodes:
        if node.op in ("get_attr", "call_module"):  # a callable may have tensors of its own
            node.target = f"{OWN}.{node.target}"
    places = {node: result for node in graph.nodes if node.op == "placeholder"}
    score = gm.graph.graph_copy(graph, places)
    if not isinstance(score, fx.Node):
        raise TargetError(f"target: the callable {target!r} returns {score!r}; wanted one number "
                          "per sample, [N], computed from the model's output")  # fmt: skip
    for node in gm.graph.nodes:
        node.meta.setdefault(keys.SITE, node.name)
    return score
