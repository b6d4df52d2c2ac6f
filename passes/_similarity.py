"""What is explained of a pair of images: embeddings, metrics (docs/method.md 6)."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx

from naflow_fx import keys
from naflow_fx.errors import TargetError
from naflow_fx.passes import _graph
from naflow_fx.rules import hold, pair_side
from naflow_fx.rules.contract import bind
from naflow_fx.selection import no_site
from naflow_fx.similarity import PENULTIMATE, Similarity

_DIVISIONS = ("truediv", "div", "true_divide")
_OF_A_NORM = {
    "sum", "pow", "norm", "square", "sqrt", "clamp", "clamp_min", "add", "expand", "expand_as",
    "vector_norm", "linalg_vector_norm", "linalg_norm", "maximum", "unsqueeze", "mul", "view_as",
}  # fmt: skip


def embedding(gm: fx.GraphModule, result: Any, target: Similarity) -> fx.Node:
    """v, [B, D]: what is compared of each image.

    Raises:
        TargetError: there is no such embedding.
    """
    return _flat(gm.graph, _hold_norm(gm.graph, _found(gm, result, target)), target)


def pair_embeddings(gm: fx.GraphModule, result: Any, target: Similarity) -> list[fx.Node]:
    """v_Q and v_S, [N, D], of an encoder whose batch holds N queries, then N x shots supports."""
    both = embedding(gm, result, target)
    return [
        gm.graph.call_function(pair_side.forward, (both, support, target.shots))
        for support in (False, True)
    ]


def _found(gm: fx.GraphModule, result: Any, target: Similarity) -> fx.Node:
    if target.at is None:
        if isinstance(result, fx.Node):
            return result
        raise TargetError(f"Similarity: the encoder returns a {type(result).__name__}, not one "
                          "embedding; name the call site that holds it, at=...")  # fmt: skip
    if target.at == PENULTIMATE:
        for node in reversed(gm.graph.nodes):
            if _is_dense(gm, node):
                read: fx.Node = node.all_input_nodes[0]
                return read
        raise TargetError(
            "Similarity: the model has no fully connected layer, so at='penultimate' names "
            "nothing; name the call site of the embedding, at=..."
        )
    sites: dict[str, fx.Node] = {
        str(n.meta.get(keys.SITE)): n for n in gm.graph.nodes if n.op != "output"
    }
    if target.at not in sites:
        raise no_site(TargetError, list(sites), [target.at])
    return sites[target.at]


def _is_dense(gm: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a traced call is a fully connected layer."""
    found = _graph.claimed(gm, node)
    return found is not None and bool(found[0].kernel) and not found[0].convolves


def _hold_norm(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """``v / hold(||v||)`` for a final ``v / ||v||``, however it is written; else the node."""
    call = graph.call_function
    v: Any
    if node.target is F.normalize:
        given = bind(F.normalize, *node.args, **node.kwargs)
        v = given["input"]
        norm = call(torch.linalg.vector_norm, (v, given["p"], given["dim"], True))
        norm = call(torch.clamp, (norm,), {"min": given["eps"]})
    elif _graph.operator_name(node) in _DIVISIONS and len(node.args) == 2:
        v, norm = node.args  # type: ignore[assignment]
        if not _is_norm_of(v, norm):
            return node
    else:
        return node
    return call(operator.truediv, (v, call(hold.forward, (norm,))))


def _is_norm_of(v: Any, norm: Any) -> bool:
    """Whether `norm` is made of `v` alone, by a sum or norm and what goes with it."""
    if not isinstance(v, fx.Node) or not isinstance(norm, fx.Node):
        return False
    made = _graph.reached([norm], lambda n: [x for x in n.all_input_nodes if x is not v])
    names = {_graph.operator_name(node).strip("_") for node in made}
    reduces = any("sum" in name or "norm" in name for name in names)
    reached = any(v in node.all_input_nodes for node in made)
    return reached and reduces and names <= _OF_A_NORM


def _flat(graph: fx.Graph, v: fx.Node, target: Similarity) -> fx.Node:
    """[B, D] of an embedding of any rank."""
    if target.pool == "flatten":
        return graph.call_function(torch.flatten, (v, 1))
    columns = graph.call_method("unsqueeze", (v, -1))  # [B, D] has a space of one pixel
    return graph.call_function(torch.mean, (graph.call_function(torch.flatten, (columns, 2)), 2))


def compared(graph: fx.Graph, metric: str, q: fx.Node, s: fx.Node) -> dict[str, fx.Node]:
    """The score, the similarity [N] and the contributions [N, D] of two embeddings [N, D]."""
    call = graph.call_function
    if metric == "euclidean":
        difference = call(torch.sub, (q, s))
        product = call(torch.neg, (call(torch.mul, (difference, difference)),))
    else:
        product = call(torch.mul, (q, s))
    if metric != "cosine":
        score = call(torch.sum, (product, 1))
        return {"score": score, "similarity": score, "contribution": product}
    total = call(torch.sum, (product, 1, True))
    omega = call(torch.div, (product, call(hold.forward, (call(torch.abs, (total,)),))))
    lengths = [call(torch.linalg.vector_norm, (x, 2, 1, False)) for x in (q, s)]
    dot = call(torch.sum, (product, 1))
    return {
        "score": call(torch.sum, (omega, 1)),
        "similarity": call(torch.div, (dot, call(torch.mul, tuple(lengths)))),
        "contribution": omega,
    }
