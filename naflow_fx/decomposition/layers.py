"""Which layers a decomposition goes through: those that carry the whole decision."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import fx

from naflow_fx import keys
from naflow_fx.errors import GraphError
from naflow_fx.passes import _graph
from naflow_fx.passes.find_cuts import find_cuts
from naflow_fx.passes.find_flow import sites_of
from naflow_fx.selection import choose, matching, without_blocks

DEPTH = 4  # layers by default


def choose_layers(gm: fx.GraphModule, wanted: tuple[str, ...] | None) -> list[fx.Node]:
    """The layers' nodes, from the score down; None: the ends of the last four stages.

    A stage is what has one size of feature map.  A glob takes those call sites that all paths
    pass.

    Raises:
        GraphError: no such call site, or one that some path to the score goes around.
    """
    sites = sites_of(gm.graph)
    names = _graph.names(gm.graph)
    cuts = [names[name] for name in find_cuts(gm.graph) if names[name] in sites.values()]
    if wanted is None:
        return _stages(cuts)
    wanted = tuple(without_blocks(list(sites), wanted))
    chosen = {sites[name] for name in choose(list(sites), wanted, GraphError)}
    _check(wanted, sites, cuts)
    return [node for node in cuts if node in chosen]


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
    inner = [node for node in cuts if _rule(node) not in (None, "pad")]
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
    merges = (node for node in stage if len(_graph.operands(node, invertible=True)) > 1)
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
    size: int = node.meta[keys.SHAPE][node.meta[keys.LABELS].index("C")]
    return size


def _rule(node: fx.Node) -> str | None:
    rule = _graph.rule_of(node)
    return rule.name if rule else None
