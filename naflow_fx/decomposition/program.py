"""The programs of a decomposition: one forward with captures, one importance graph a level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from naflow_fx import keys
from naflow_fx.compiler import CAPTURED, run_pipeline
from naflow_fx.decomposition.layers import choose_layers
from naflow_fx.job import Job
from naflow_fx.passes import _graph, _module
from naflow_fx.passes.build_segment import Segment, build_segment
from naflow_fx.passes.find_flow import score_of
from naflow_fx.passes.prune import prune

Bias = dict[str, Tensor]


@dataclass(frozen=True)
class Layer:
    """A call site: its name, its node's, which dimension holds the channels, the map's size."""

    site: str
    name: str
    channel: int
    space: tuple[int, ...]


@dataclass(frozen=True)
class Program:
    """`forward` (image[, target]) -> {"output", "score", "target", "values"}; levels, top first.

    `levels[i]` leads back from layer i - 1 (the score, for i = 0) to layer i.
    """

    forward: fx.GraphModule
    layers: tuple[Layer, ...]
    levels: tuple[Segment, ...]


def build_program(job: Job) -> Program:
    """The programs of a model, a target and layers (`job.options.layers`)."""
    gm = run_pipeline(job, CAPTURED)
    nodes = choose_layers(gm, job.options.layers)
    layers = [_layer(node) for node in nodes]
    ends = [score_of(gm.graph).name, *(layer.name for layer in layers)]
    levels = [build_segment(gm, a, b) for a, b in zip(ends, ends[1:], strict=False)]
    return Program(_forward(gm, levels), tuple(layers), tuple(levels))


def _layer(node: fx.Node) -> Layer:
    labels, shape = node.meta[keys.LABELS], node.meta[keys.SHAPE]
    space = tuple(size for size, label in zip(shape, labels, strict=True) if label == "S")
    return Layer(node.meta[keys.SITE], node.name, labels.index("C"), space)


def _forward(gm: fx.GraphModule, levels: list[Segment]) -> fx.GraphModule:
    """The network with what the levels read among its results."""
    new = _module.copy(gm)
    names = _graph.names(new.graph)
    end = _graph.output_node(new.graph)
    found: Any = end.args[0]
    wanted = {name for level in levels for name in (*level.needs, level.entry)}
    index = score_of(new.graph).meta.get(keys.CAPTURES, {}).get("index")
    with new.graph.inserting_before(end):
        new.graph.output({
            "output": found["output"], "score": found["score"],
            "target": names[index] if index else None,
            "values": {name: names[name] for name in sorted(wanted)},
        })  # fmt: skip
    new.graph.erase_node(end)
    return prune(new)


def lead_back(level: Segment, values: dict[str, Tensor], w: Tensor) -> tuple[Tensor, Bias]:
    """What the entry of a level is worth to each of several decisions, and its constants.

    w [P, *shape of the level's end] -> [P, *shape of its entry], {rule: [P]}.  The network's
    state is one image's; the decisions are a batch of vectors (`torch.vmap`).
    """
    state = [values[name] for name in level.needs]
    back = torch.vmap(level.program, in_dims=(*(None for _ in state), 0))
    result: tuple[Tensor, Bias] = back(*state, w)
    return result
