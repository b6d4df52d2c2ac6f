"""add_score: what is explained, appended to the model's graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, fx, nn

from naflow_fx import keys
from naflow_fx.errors import TargetError
from naflow_fx.passes import _graph
from naflow_fx.passes._similarity import METRICS, pair_embeddings
from naflow_fx.passes.trace import PathTracer
from naflow_fx.rules import class_score
from naflow_fx.similarity import Similarity
from naflow_fx.targets import Score

OUTPUT, SCORE = "output", "score"
OWN = "target_callable"  # the submodule that holds the tensors of a callable target


def add_score(gm: fx.GraphModule, target: Score | Similarity | None) -> fx.GraphModule:
    """The output becomes ``{"output": the model's own, "score": [N]}``.

    Before: a traced graph.  After: with `target` None a second input, `target` int64 [N], and
    the logit of that class (-1: the largest); else what the callable makes of the model's
    output, traced into the same graph.  A `Similarity` adds ``"similarity": [N]`` and
    ``"contribution": [N, D]`` (not where its metric is a callable); the encoder's batch holds N
    queries, then their supports.

    Raises:
        TargetError: the callable can't be traced.
    """
    new = _graph.copy(gm)
    end = _graph.output_node(new.graph)
    result: Any = end.args[0]
    with new.graph.inserting_before(end):
        if isinstance(target, Similarity):
            found = _pair(new, result, target)
        else:
            found = {SCORE: _class(new, result) if target is None
                     else _callable(new, result, target)}  # fmt: skip
        new.graph.output({OUTPUT: result, **found})
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


class _Metric(_Target):
    def forward(self, query: Any, support: Any) -> Tensor:  # type: ignore[override]
        return self.function(query, support)


def _callable(gm: fx.GraphModule, result: Any, target: Callable[..., Tensor]) -> fx.Node:
    wanted = "It takes the model's output and returns one number per sample, [N]"
    return _append(gm, _Target(target), (result,), wanted)


def _append(gm: fx.GraphModule, root: _Target, inputs: tuple[Any, ...], wanted: str) -> fx.Node:
    """The nodes of a user's function of `inputs`; it may have tensors of its own."""
    try:
        graph = PathTracer().trace(root)
    except Exception as error:
        raise TargetError(
            f"target: the callable {root.function!r} can't be traced: {error}\n  {wanted}, "
            "without control flow on tensors."
        ) from error
    gm.add_submodule(OWN, fx.GraphModule(root, graph))
    for node in graph.nodes:
        node.meta[keys.TARGET] = True
        if node.op in ("get_attr", "call_module"):
            node.target = f"{OWN}.{node.target}"
    taken = [node for node in graph.nodes if node.op == "placeholder"]
    score = gm.graph.graph_copy(graph, dict(zip(taken, inputs, strict=True)))
    if not isinstance(score, fx.Node):
        raise TargetError(f"target: the callable {root.function!r} returns {score!r}; wanted one "
                          "number per sample, [N], computed from its arguments")  # fmt: skip
    for node in gm.graph.nodes:
        node.meta.setdefault(keys.SITE, node.name)
    return score


def _pair(gm: fx.GraphModule, result: Any, target: Similarity) -> dict[str, fx.Node]:
    """The similarity's score, value and contributions; see `_similarity`."""
    sides = pair_embeddings(gm, result, target)
    if not callable(target.metric):
        found = METRICS[target.metric](gm.graph, *sides)
    else:
        wanted = "It takes two embeddings [N, D] and returns one number per pair, [N]"
        score = _append(gm, _Metric(target.metric), tuple(sides), wanted)
        found = {SCORE: score, "similarity": score}
    for node in gm.graph.nodes:
        node.meta.setdefault(keys.SITE, node.name)
    return found
