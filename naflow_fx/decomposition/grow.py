"""From the score down: who answers for each node of a level, and for how much."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import networkx as nx
import torch
from torch import Tensor

from naflow_fx.decomposition.cost import Cost
from naflow_fx.decomposition.program import Bias, Layer, Program, lead_back
from naflow_fx.maps import evidence

ROOT = "root"
ROWS = 32  # nodes that are led back at a time


def share(part: float, whole: float) -> float:
    """part / whole, 0 where the whole is 0."""
    value = part / whole if whole else 0.0
    return value if math.isfinite(value) else 0.0


@dataclass(frozen=True)
class Front:
    """The nodes of a level and what their layer is worth to each: only their own channel is.

    Attributes:
        nodes: their names in the tree.
        channels: index of each one's channel; None for the root.
        slices: w of that channel, [P, *the layer's shape without channels].
    """

    nodes: list[str]
    channels: list[int] | None
    slices: Tensor

    def blocks(self, like: Tensor, dimension: int) -> Iterator[tuple[list[str], Tensor]]:
        """Some nodes at a time, and their w, [P, *shape of `like`]; its channels' dimension."""
        for i in range(0, len(self.nodes), ROWS):
            nodes, rows = self.nodes[i : i + ROWS], self.slices[i : i + ROWS]
            if self.channels is None:
                yield nodes, rows
                continue
            w = like.new_zeros(len(nodes), *like.shape)
            chosen = self.channels[i : i + ROWS]
            w.movedim(dimension + 1, 1)[torch.arange(len(nodes)), chosen] = rows
            yield nodes, w


def grow(
    program: Program, values: Mapping[str, Tensor], score: Tensor, top_k: int
) -> tuple[nx.DiGraph, Cost]:
    """The tree below the score [1] of one image whose `values` the forward program made.

    Its nodes and their fields are those of `Decomposition`; of the cost, passes are left at 1.
    """
    tree = nx.DiGraph()
    tree.add_node(ROOT, layer="score", channel=None, evidence=float(score), share=1.0,
                  map=score.new_zeros(0), peak=())  # fmt: skip
    front = Front([ROOT], None, torch.ones_like(score)[None])
    above, dimension, rows, batches = score, 0, 0, 0
    for layer, level in zip(program.layers, program.levels, strict=True):
        if not front.nodes:
            break
        x = values[layer.name]
        found = []
        for parents, w in front.blocks(above, dimension):
            v, bias = lead_back(level, dict(values), w)
            found.append(_children(tree, parents, v, bias, x, layer, top_k))
            rows, batches = rows + len(parents), batches + 1
        front = Front([n for part in found for n in part.nodes],
                      [c for part in found for c in part.channels or ()],
                      torch.cat([part.slices for part in found]))  # fmt: skip
        above, dimension = x, layer.channel
    return tree, Cost(1, 1, rows, batches)


def _children(
    tree: nx.DiGraph, parents: list[str], v: Tensor, bias: Bias, x: Tensor, layer: Layer, top_k: int
) -> Front:
    """Adds to each parent its strongest channels, the rest and the constants; gives the former.

    v [P, *shape of x]: what x is worth to each parent.
    """
    moved, activation = v.movedim(layer.channel + 1, 1), x.movedim(layer.channel, 0)
    worth = evidence.product(moved, activation)
    nodes, channels, slices = [], [], [moved[:0, 0]]
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
        channels += chosen
        slices.append(moved[p, chosen])
        others = torch.ones_like(total, dtype=torch.bool)
        others[chosen] = False
        constants = {name: float(value[p]) for name, value in bias.items()}
        facts |= {"remainder": float(total[others].sum()), "bias": sum(constants.values()),
                  "constants": constants}  # fmt: skip
        if parent == ROOT:  # where the first layer as a whole supports the decision
            facts["map"] = _picture(worth[p].sum(0), layer).relu()
    return Front(nodes, channels, torch.cat(slices))


def _picture(values: Tensor, layer: Layer) -> Tensor:
    """One image's values of one channel, [*space], on the CPU."""
    return values.detach().reshape(layer.space).cpu()


def _peak(values: Tensor) -> tuple[int, ...]:
    """Position of the largest value."""
    return tuple(map(int, torch.unravel_index(values.argmax(), values.shape)))
