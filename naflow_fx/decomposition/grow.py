"""From the score down: who answers for each node of a level, and for how much."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from naflow_fx.decomposition.program import Bias, Layer, Program, lead_back
from naflow_fx.maps import evidence

ROWS = 32  # nodes that are led back at a time


@dataclass
class Node:
    """A decision: the score, or a channel of a layer that answers for a part of one.

    Attributes:
        layer: call site; "score" for the root.
        channel: index; None for the root.
        evidence: signed share of the decision, in the score's units.
        map: [H, W] (or the layer's own space), max(0, summand): where its evidence lies.
        peak: position of the channel's largest activation, in the layer's grid.
        children: of the next layer, the largest first.
        remainder: evidence of all other channels of the next layer; None for a leaf.
        bias: rule -> evidence of the constants between; None for a leaf.
    """

    layer: str
    channel: int | None
    evidence: float
    map: Tensor
    peak: tuple[int, ...]
    children: list[Node] = field(default_factory=list)
    remainder: float | None = None
    bias: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Front:
    """The nodes of a level and what their layer is worth to each: only their own channel is.

    slices: w of that channel, [P, *the layer's shape without channels].
    """

    nodes: list[Node]
    slices: Tensor

    def blocks(self, like: Tensor, channel: int | None) -> Iterator[tuple[list[Node], Tensor]]:
        """Some nodes at a time, and their w, [P, *shape of `like`]."""
        for i in range(0, len(self.nodes), ROWS):
            nodes, rows = self.nodes[i : i + ROWS], self.slices[i : i + ROWS]
            if channel is None:
                yield nodes, rows
                continue
            w = like.new_zeros(len(nodes), *like.shape)
            chosen = [node.channel for node in nodes]
            w.movedim(channel + 1, 1)[torch.arange(len(nodes)), chosen] = rows
            yield nodes, w


def grow(program: Program, values: Mapping[str, Tensor], score: Tensor, top_k: int) -> Node:
    """The tree below the score [1] of one image whose `values` the forward program made."""
    root = Node("score", None, float(score), score.new_zeros(0), ())
    front = Front([root], torch.ones_like(score)[None])
    above: tuple[Tensor, int | None] = (score, None)
    for layer, level in zip(program.layers, program.levels, strict=True):
        if not front.nodes:
            break
        x = values[layer.name]
        found = []
        for nodes, w in front.blocks(*above):
            v, bias = lead_back(level, dict(values), w)
            found.append(_children(nodes, v, bias, x, layer, top_k))
        front = Front([n for part in found for n in part.nodes],
                      torch.cat([part.slices for part in found]))  # fmt: skip
        above = (x, layer.channel)
    return root


def _children(
    parents: list[Node], v: Tensor, bias: Bias, x: Tensor, layer: Layer, top_k: int
) -> Front:
    """Adds to each parent its strongest channels, the rest and the constants; gives the former.

    v [P, *shape of x]: what x is worth to each parent.
    """
    moved = v.movedim(layer.channel + 1, 1)
    activation = x.movedim(layer.channel, 0)
    shares = evidence.product(moved, activation)
    rows: list[tuple[int, int]] = []
    for p, parent in enumerate(parents):
        rows += [(p, c) for c in _fill(parent, shares[p], activation, layer, top_k)]
        parent.bias = {name: float(value[p]) for name, value in bias.items()}
    index = torch.tensor(rows, dtype=torch.int64, device=v.device).reshape(-1, 2)
    children = [child for parent in parents for child in parent.children]
    return Front(children, moved[index[:, 0], index[:, 1]])


def _fill(parent: Node, shares: Tensor, activation: Tensor, layer: Layer, top_k: int) -> list[int]:
    """Adds to a parent its children and the remainder; gives the children's channels.

    shares, activation: [C, *the rest of x]; the former's sum over the rest is the evidence.
    """
    channels = shares.flatten(1).sum(1)
    best = channels.topk(min(top_k, len(channels)))
    chosen: list[int] = best.indices[best.values > 0].tolist()
    parent.children = [_node(layer, c, channels[c], shares[c], activation[c]) for c in chosen]
    others = torch.ones_like(channels, dtype=torch.bool)
    others[chosen] = False
    parent.remainder = float(channels[others].sum())
    if parent.channel is None:  # where the first layer as a whole supports the decision
        parent.map = _picture(shares.sum(0), layer).relu()
    return chosen


def _node(layer: Layer, channel: int, value: Tensor, share: Tensor, activation: Tensor) -> Node:
    seen = _picture(activation, layer)
    peak = torch.unravel_index(seen.argmax(), seen.shape)
    where = tuple(int(i) for i in peak)
    return Node(layer.site, channel, float(value), _picture(share, layer).relu(), where)


def _picture(values: Tensor, layer: Layer) -> Tensor:
    """One image's values of one channel, [*space], on the CPU."""
    return values.detach().reshape(layer.space).cpu()
