"""From the score down: who answers for each node of a level, and for how much."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import networkx as nx
import torch
from torch import Tensor

from naflow_fx.decomposition.program import Bias, lead_back
from naflow_fx.maps import evidence
from naflow_fx.passes.build_segment import Segment

ROOT = "root"
ROWS = 32  # nodes that are led back at a time


def share(part: float, whole: float) -> float:
    """part / whole, 0 where the whole is 0."""
    value = part / whole if whole else 0.0
    return value if math.isfinite(value) else 0.0


def grow(
    levels: Sequence[Segment], values: Mapping[str, Tensor], score: Tensor, top_k: int
) -> tuple[nx.DiGraph, int, int]:
    """The tree below the score [1] of one image whose `values` the forward program made.

    Its nodes and their fields are those of `Decomposition`.  Also how many of them were led back,
    and in how many batches.
    """
    tree = nx.DiGraph()
    tree.add_node(ROOT, layer="score", channel=None, evidence=float(score), share=1.0,
                  map=score.new_zeros(0), peak=())  # fmt: skip
    nodes, slices = [ROOT], torch.ones_like(score)[None]
    above, dimension, rows, batches = score, 0, 0, 0
    for level in levels:
        if not nodes:
            break
        x, found = values[level.entry], []
        for i in range(0, len(nodes), ROWS):
            parents = nodes[i : i + ROWS]
            w = _spread(tree, parents, slices[i : i + ROWS], above, dimension)
            v, bias = lead_back(level, values, w)
            found.append(_children(tree, parents, v, bias, x, level, top_k))
        rows, batches = rows + len(nodes), batches + len(found)
        nodes = [node for names, _ in found for node in names]
        slices = torch.cat([part for _, part in found])
        above, dimension = x, level.channel
    return tree, rows, batches


def _spread(
    tree: nx.DiGraph, nodes: list[str], slices: Tensor, like: Tensor, dimension: int
) -> Tensor:
    """w of some nodes, [P, *shape of `like`], from w of each one's channel: only that is not 0.

    The channels are in that dimension of `like`; the root is the score as a whole.
    """
    if nodes == [ROOT]:
        return slices
    w = like.new_zeros(len(nodes), *like.shape)
    channels = [tree.nodes[node]["channel"] for node in nodes]
    w.movedim(dimension + 1, 1)[torch.arange(len(nodes)), channels] = slices
    return w


def _children(
    tree: nx.DiGraph, parents: list[str], v: Tensor, bias: Bias, x: Tensor, layer: Segment,
    top_k: int,
) -> tuple[list[str], Tensor]:  # fmt: skip
    """Adds to each parent its strongest channels, the rest and the constants.

    v [P, *shape of x]: what x is worth to each parent.  Gives the children's names, and v of each
    one's channel, [children, *shape of x without channels].
    """
    moved, activation = v.movedim(layer.channel + 1, 1), x.movedim(layer.channel, 0)
    worth = evidence.product(moved, activation)
    nodes, slices = [], [moved[:0, 0]]
    for p, parent in enumerate(parents):
        facts = tree.nodes[parent]
        total = worth[p].flatten(1).sum(1)
        best = total.topk(min(top_k, len(total)))
        chosen: list[int] = best.indices[best.values > 0].tolist()
        for i, c in enumerate(chosen, 1):
            key = str(i) if parent == ROOT else f"{parent}.{i}"
            value = float(total[c])
            tree.add_node(key, layer=layer.site, channel=c, evidence=value,
                          share=share(value, facts["evidence"]),
                          map=_picture(worth[p, c], layer).relu(),
                          peak=_peak(_picture(activation[c], layer)))  # fmt: skip
            tree.add_edge(parent, key)
            nodes.append(key)
        slices.append(moved[p, chosen])
        others = torch.ones_like(total, dtype=torch.bool)
        others[chosen] = False
        constants = {name: float(value[p]) for name, value in bias.items()}
        facts |= {"remainder": float(total[others].sum()), "bias": sum(constants.values()),
                  "constants": constants}  # fmt: skip
        if parent == ROOT:  # where the first layer as a whole supports the decision
            facts["map"] = _picture(worth[p].sum(0), layer).relu()
    return nodes, torch.cat(slices)


def _picture(values: Tensor, layer: Segment) -> Tensor:
    """One image's values of one channel, [*space], on the CPU."""
    return values.detach().reshape(layer.space).cpu()


def _peak(values: Tensor) -> tuple[int, ...]:
    """Position of the largest value."""
    return tuple(map(int, torch.unravel_index(values.argmax(), values.shape)))
