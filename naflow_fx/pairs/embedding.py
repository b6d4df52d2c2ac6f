"""Embeddings: what a similarity compares, computed for many images with the encoder alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from naflow_fx.errors import InputError
from naflow_fx.guards.modes import plain_modes
from naflow_fx.passes import _module
from naflow_fx.passes._similarity import embedding
from naflow_fx.passes.trace import trace
from naflow_fx.similarity import Similarity


def encoder_of(model: nn.Module, example: Tensor, similarity: Similarity) -> fx.GraphModule:
    """The part of a model that makes the embedding: images [N, C, H, W] -> v, [N, D].

    The embedding is the one that ``compile(model, example, target=similarity)`` explains.
    """
    with plain_modes(example.device.type):
        gm = trace(model, (example,))
    end = gm.graph.output_node()
    with gm.graph.inserting_before(end):
        gm.graph.output(embedding(gm, end.args[0], similarity))
    gm.graph.erase_node(end)
    gm.graph.eliminate_dead_code()
    return _module.rebuild(gm, gm.graph)


def embed(encoder: nn.Module, images: Tensor, block: int = 64) -> Tensor:
    """v of images [N, C, H, W], `block` at a time: [N, D]."""
    with torch.no_grad():
        return torch.cat([encoder(part) for part in torch.split(images, block)])


def compare(query: Tensor, support: Tensor, similarity: Similarity) -> Tensor:
    """The metric of all queries [Q, D] with all supports [G, D]: [Q, G].

    Raises:
        InputError: embeddings of different length, or of zeros where their angle is asked for.
    """
    if query.dim() != 2 or support.dim() != 2 or query.shape[1] != support.shape[1]:
        raise InputError(f"embeddings: got {list(query.shape)} and {list(support.shape)}; wanted "
                         "[Q, D] and [G, D] with one D")  # fmt: skip
    metric: Any = similarity.metric
    if metric == "dot":
        return query @ support.T
    if metric == "euclidean":
        square = query.square().sum(1, keepdim=True) + support.square().sum(1)
        return (2 * query @ support.T - square).clamp_max(0)
    if metric == "cosine":
        return unit("query", query) @ unit("support", support).T
    return torch.stack([metric(row.expand_as(support), support) for row in query])


def unit(name: str, v: Tensor) -> Tensor:
    """v / ||v||, [N, D].

    Raises:
        InputError: a row of zeros, or one that is not finite.
    """
    length: Tensor = v.norm(dim=1, keepdim=True)
    bad = (~length.isfinite() | (length == 0)).flatten().nonzero().flatten().tolist()
    if bad:
        raise InputError(f"{name} {bad[:8]}: the embedding is all zero or not finite; its angle to "
                         "others is not defined")  # fmt: skip
    return v / length
