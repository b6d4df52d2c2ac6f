"""The programs of a decomposition: one forward with captures, one importance graph a level.

A level leads back to a layer that carries the whole decision: one that all paths to it pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import networkx as nx
import torch
from torch import Tensor, fx

from naflow_fx import keys
from naflow_fx.compiler import CAPTURED, run_pipeline
from naflow_fx.errors import GraphError
from naflow_fx.job import Job
from naflow_fx.passes import _graph, _module
from naflow_fx.passes.build_segment import Segment, build_segment
from naflow_fx.passes.find_flow import score_of, sites_of, target_of
from naflow_fx.passes.prune import prune
from naflow_fx.selection import choose, matching, without_blocks

DEPTH = 4  # layers by default

Bias = dict[str, Tensor]


def build_program(job: Job) -> tuple[fx.GraphModule, list[Segment]]:
    """The forward program, and the levels that lead back, top first, of `job.options.layers`.

    The forward is (image[, target]) -> {"output", "score", "target", "values"}; ``levels[i]`` leads
    back from the entry of ``levels[i - 1]`` (the score, for i = 0) to layer i.
    """
    gm = run_pipeline(job, CAPTURED)
    ends = [score_of(gm.graph), *choose_layers(gm, job.options.layers)]
    levels = [build_segment(gm, a, b) for a, b in zip(ends, ends[1:], strict=False)]
    return _forward(gm, levels), levels


def _forward(gm: fx.GraphModule, levels: list[Segment]) -> fx.GraphModule:
    """The network with what the levels read among its results."""
    new = _module.copy(gm)
    names, end = _graph.names(new.graph), new.graph.output_node()
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


def choose_layers(gm: fx.GraphModule, wanted: tuple[str, ...] | None) -> list[fx.Node]:
    """The layers' nodes, from the score down; None: the ends of the last four stages.

    A stage is what has one size of feature map.  A glob takes those call sites that all paths
    pass.

    Raises:
        GraphError: no such call site, or one that some path to the score goes around.
    """
    sites = sites_of(gm.graph)
    cuts = [node for node in find_cuts(gm.graph) if node in sites.values()]
    if wanted is None:
        return _stages(cuts)
    wanted = tuple(without_blocks(list(sites), wanted))
    chosen = {sites[name] for name in choose(list(sites), wanted, GraphError)}
    _check(wanted, sites, cuts)
    return [node for node in cuts if node in chosen]


def find_cuts(graph: fx.Graph) -> list[fx.Node]:
    """The nodes that all paths pass, gates' paths included, from the score to the image.

    They are the dominators of the score: what reaches it from the image is a function of any one
    of them, and of constants.

    Raises:
        GraphError: the model takes several images.
    """
    score = score_of(graph)
    used = _graph.reached([score], _graph.operands)
    inputs = [node for node in graph.find_nodes(op="placeholder") if node in used]
    if len(inputs) != 1:
        names = ", ".join(node.name for node in inputs)
        raise GraphError(f"the score depends on {len(inputs)} inputs ({names}); a decomposition "
                         "needs a model of one image")  # fmt: skip
    paths = nx.DiGraph([(operand, node) for node in used for operand in _graph.operands(node)])
    above = nx.immediate_dominators(paths, inputs[0])
    cuts = [score]
    while cuts[-1] is not inputs[0]:
        cuts.append(above[cuts[-1]])
    return cuts


def _check(wanted: Sequence[str], sites: dict[str, fx.Node], cuts: list[fx.Node]) -> None:
    """Raises for what is asked for and doesn't carry the whole decision."""
    whole = [node.meta[keys.SITE] for node in reversed(cuts)]
    _, lost = matching(whole, wanted)
    around = [w for w in wanted if w in lost or (w in sites and w not in whole)]
    if around:
        near = dict.fromkeys(name for w in around for name in _near(w, list(sites), whole))
        raise GraphError(
            f"layers: a path to the score goes around {', '.join(around)}, so its channels don't "
            f"answer for the whole decision; nearest layers that do: {', '.join(near)}"
        )


def _near(wanted: str, sites: list[str], whole: list[str]) -> list[str]:
    """The last site before, and the first after what is asked for, that all paths pass."""
    place = sites.index(matching(sites, [wanted])[0][0])
    before = [name for name in sites[:place] if name in whole]
    after = [name for name in sites[place:] if name in whole]
    return before[-1:] + after[:1]


def _stages(cuts: list[fx.Node]) -> list[fx.Node]:
    """One layer a stage: its last, or the last that is as wide as its last merge of branches."""
    inner = [node for node in cuts if node.meta.get(keys.RULE, "pad") != "pad"]
    if not inner:
        return cuts[:1]
    stages: dict[int, list[fx.Node]] = {}
    for node in inner:
        stages.setdefault(_halvings(node, cuts[-1]), []).append(node)
    rest = list(stages.values())
    if len(rest) < 3:  # one size throughout: spread evenly
        places = {round(i * (len(inner) - 1) / DEPTH) for i in range(DEPTH)}
        return [inner[i] for i in sorted(places)]
    return [rest[0][0], *map(_end, rest[1:DEPTH])]


def _end(stage: list[fx.Node]) -> fx.Node:
    merges = (node for node in stage if len(_graph.sources(node)) > 1)
    merge = next(merges, stage[0])
    return next(node for node in stage if _channels(node) == _channels(merge))


def _halvings(node: fx.Node, image: fx.Node) -> int:
    """How often the image's sides were halved, padding aside."""
    ratio = math.prod(image.meta[keys.SHAPE][2:]) / _positions(node)
    return round(math.log2(ratio) / (len(image.meta[keys.SHAPE]) - 2))


def _positions(node: fx.Node) -> int:
    pairs = zip(node.meta[keys.SHAPE], node.meta[keys.LABELS], strict=True)
    return math.prod(size for size, label in pairs if label == "S")


def _channels(node: fx.Node) -> int:
    return int(node.meta[keys.SHAPE][node.meta[keys.LABELS].index("C")])
