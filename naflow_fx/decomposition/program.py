"""The programs of a decomposition: one forward with captures, one importance graph a level."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from naflow_fx.compiler import CAPTURED, run_pipeline
from naflow_fx.decomposition.layers import choose_layers
from naflow_fx.job import Job
from naflow_fx.passes import _graph, _module
from naflow_fx.passes.build_segment import Segment, build_segment
from naflow_fx.passes.find_flow import score_of, target_of
from naflow_fx.passes.prune import prune

Bias = dict[str, Tensor]


def build_program(job: Job) -> tuple[fx.GraphModule, list[Segment]]:
    """The forward program, and the levels that lead back, top first, of `job.options.layers`.

    The forward is (image[, target]) -> {"output", "score", "target", "values"}; ``levels[i]`` leads
    back from the entry of ``levels[i - 1]`` (the score, for i = 0) to layer i.
    """
    gm = run_pipeline(job, CAPTURED)
    ends = [score_of(gm.graph), *choose_layers(gm, job.options.layers)]
    levels = [build_segment(gm, a.name, b.name) for a, b in zip(ends, ends[1:], strict=False)]
    return _forward(gm, levels), levels


def _forward(gm: fx.GraphModule, levels: list[Segment]) -> fx.GraphModule:
    """The network with what the levels read among its results."""
    new = _module.copy(gm)
    names, end = _graph.names(new.graph), _graph.output_node(new.graph)
    found: Any = end.args[0]
    wanted = {name for level in levels for name in (*level.needs, level.entry)}
    end.args = ({
        "output": found["output"], "score": found["score"], "target": target_of(new.graph),
        "values": {name: names[name] for name in sorted(wanted)},
    },)  # fmt: skip
    return prune(new)


def lead_back(level: Segment, values: Mapping[str, Tensor], w: Tensor) -> tuple[Tensor, Bias]:
    """What the entry of a level is worth to each of several decisions, and its constants.

    w [P, *shape of the level's end] -> [P, *shape of its entry], {rule: [P]}.  The network's
    state is one image's; the decisions are a batch of vectors (`torch.vmap`).
    """
    state = [values[name] for name in level.needs]
    back = torch.vmap(level.program, in_dims=(*(None for _ in state), 0))
    result: tuple[Tensor, Bias] = back(*state, w)
    return result
