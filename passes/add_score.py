"""add_score: what is explained, appended to the model's graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from naflow_fx import keys
from naflow_fx.errors import GraphError, TargetError, TraceError
from naflow_fx.guards.records import like, pick
from naflow_fx.options import Options
from naflow_fx.passes import _module
from naflow_fx.passes._similarity import compared, pair_embeddings
from naflow_fx.passes.annotate_values import run_fake
from naflow_fx.passes.trace import PathTracer, export_any_batch
from naflow_fx.rules import class_score
from naflow_fx.similarity import Similarity
from naflow_fx.targets import Score

Fake = Callable[[], dict[fx.Node, Any]]  # what the graph's nodes yield, for who asks for shapes
OWN = "target_callable"  # the submodule that holds the tensors of a callable target


def add_score(
    gm: fx.GraphModule,
    target: Score | Similarity | None,
    examples: Sequence[Tensor],
    options: Options,
    images_per_sample: int,
) -> fx.GraphModule:
    """The output becomes ``{"output": the model's own, "score": [N]}``.

    Before: a traced graph.  After: with `target` None a second input, `target` int64 [N], and
    the logit of that class (-1: the largest; of an output [N], the number itself); else what
    the callable makes of the model's output, or of the one that `options.output` names, traced
    into the same graph.  A `Similarity` adds ``"similarity": [N]`` and ``"contribution": [N, D]``
    (not where its metric is a callable); the encoder's batch holds N queries, then their supports.

    Raises:
        TargetError: the callable can't be traced, or there is no such output.
    """
    new = _module.copy(gm)
    end = new.graph.output_node()
    result: Any = end.args[0]
    fake = partial(run_fake, new, examples, 2 * images_per_sample)
    with new.graph.inserting_before(end):
        if isinstance(target, Similarity):
            found = _pair(new, result, target, fake)
        elif target is None:
            found = {"score": _class(new, result, options.output)}
        else:
            found = {"score": _callable(new, result, target, fake, options.output)}
    end.args = ({"output": result, **found},)
    for node in new.graph.nodes:
        node.meta.setdefault(keys.SITE, node.name)
    return new


def _class(gm: fx.GraphModule, whole: Any, output: str | int | None) -> fx.Node:
    result = pick(whole, output)
    if not isinstance(result, fx.Node):
        form = gm.meta.get(keys.FORM)
        parts = f" ({', '.join(map(str, result))})" if isinstance(result, dict) else ""
        kind = type(form if result is whole and form is not None else result).__name__
        raise TargetError(
            f"target: the model returns a {kind}{parts}, not one tensor [N, classes]; give "
            "nf.compile an output=, its key or index, or a target= that makes one number per "
            "sample of it"
        )
    with gm.graph.inserting_after(gm.graph.find_nodes(op="placeholder")[-1]):
        classes = gm.graph.placeholder("target")
    score = gm.graph.call_function(class_score.forward, (result, classes))
    score.meta[keys.SITE] = "score"
    return score


class _Target(nn.Module):
    """A user's function of the model's output, called with the tensors of that output."""

    def __init__(self, function: Callable[..., Tensor], rebuild: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self._rebuild = rebuild

    def forward(self, *tensors: Any) -> Tensor:
        return self.function(*self._rebuild(*tensors))


def _callable(
    gm: fx.GraphModule, result: Any, target: Score, fake: Fake, chosen: str | int | None
) -> fx.Node:
    inputs = [*dict.fromkeys(leaf for leaf in tree_leaves(result) if isinstance(leaf, fx.Node))]

    def output(*tensors: Any) -> tuple[Any, ...]:
        made = dict(zip(inputs, tensors, strict=True))
        value = like(gm.meta.get(keys.FORM), tree_map_only(fx.Node, made.__getitem__, result))
        return (value if chosen is None else pick(value, chosen),)

    wanted = "It takes the model's output and returns one number per sample, [N]"
    return _append(gm, _Target(target, output), inputs, wanted, fake)


def _append(
    gm: fx.GraphModule, root: _Target, inputs: Sequence[fx.Node], wanted: str, fake: Fake
) -> fx.Node:
    """The nodes of a user's function of `inputs`; it may have tensors of its own."""
    try:
        traced = _traced(root, inputs, fake)
    except (TraceError, TargetError):  # the model doesn't run on the example, or what is said
        raise
    except Exception as error:
        raise TargetError(
            f"target: the callable {root.function!r} can't be traced: {error}\n  {wanted}, "
            "without control flow on tensors."
        ) from error
    graph = traced.graph
    gm.add_submodule(OWN, traced)
    for node in graph.nodes:
        node.meta[keys.TARGET] = True
        if node.op in ("get_attr", "call_module"):
            node.target = f"{OWN}.{node.target}"
    taken = graph.find_nodes(op="placeholder")
    score = gm.graph.graph_copy(graph, dict(zip(taken, inputs, strict=True)))
    if not isinstance(score, fx.Node):
        raise TargetError(f"target: the callable {root.function!r} returns {score!r}; wanted one "
                          "number per sample, [N], computed from its arguments")  # fmt: skip
    return score


def _traced(root: _Target, inputs: Sequence[fx.Node], fake: Fake) -> fx.GraphModule:
    """The function's graph: by torch.fx, by torch.export where it asks for shapes."""
    try:
        return fx.GraphModule(root, PathTracer(len(inputs)).trace(root))
    except Exception as symbolic:
        found = fake()
        try:
            zeros = [torch.zeros(found[n].shape, dtype=found[n].dtype, device=found[n].device)
                     for n in inputs]  # fmt: skip
            return export_any_batch(root, zeros)
        except TargetError:  # what the function itself says
            raise
        except Exception:
            raise symbolic from None


def check_score(gm: fx.GraphModule) -> None:
    """The graph yields an output and a score."""
    result = gm.graph.output_node().args[0]
    if not isinstance(result, dict) or not {"output", "score"} <= set(result):
        raise GraphError(f"after add_score the graph yields {result!r}")


def _pair(gm: fx.GraphModule, result: Any, target: Similarity, fake: Fake) -> dict[str, fx.Node]:
    """The similarity's score, value and contributions; see `_similarity`."""
    sides = pair_embeddings(gm, result, target)
    if not callable(target.metric):
        return compared(gm.graph, target.metric, *sides)
    wanted = "It takes two embeddings [N, D] and returns one number per pair, [N]"
    root = _Target(target.metric, lambda *both: both)
    score = _append(gm, root, sides, wanted, fake)
    return {"score": score, "similarity": score}
