"""What can't be explained: no cascade, no gradient, layers that space can't be followed to."""

from __future__ import annotations

import warnings
from collections import Counter

from torch import fx

from naflow_fx import keys
from naflow_fx.errors import GraphError, NaflowWarning
from naflow_fx.passes import _graph
from naflow_fx.passes.find_flow import Flow, before, find_flow, score_of
from naflow_fx.rules import hold
from naflow_fx.rules.contract import (
    CHANNEL,
    CHANNEL_PART,
    COLLAPSED,
    MIXED,
    SPACE,
    SPACE_PART,
    TOKENS,
)


def check_labels(gm: fx.GraphModule) -> None:
    """There is a cascade to explain, and the score has a gradient.

    Raises:
        GraphError: no spatial node leads to the score, or none by its gradient.
    """
    flow = find_flow(gm.graph)
    if not flow.features or not flow.inputs:
        raise GraphError(
            "no feature map leads from the input to the score; NAFlow explains convolutional "
            "networks, whose nodes keep batch, channel and space"
        )
    stop, dead = _behind_stops(gm.graph, flow)
    if stop and len(dead) == len(flow.sites):
        raise GraphError(f"{stop}: no call site has an importance.  Take it out of forward "
                         "(train its weights with requires_grad_(False) instead)")  # fmt: skip


def tell_limits(gm: fx.GraphModule) -> None:
    """Warns of call sites that no gradient reaches, and of layers without a map."""
    flow = find_flow(gm.graph)
    stop, dead = _behind_stops(gm.graph, flow)
    if stop:
        warnings.warn(f"{stop}: the maps of {len(dead)} call sites before it are zero, from "
                      f"{dead[0]} to {dead[-1]}", NaflowWarning, stacklevel=2)  # fmt: skip
    _tell_lost(gm.graph, flow)


def _behind_stops(graph: fx.Graph, flow: Flow) -> tuple[str, list[str]]:
    """Where detach or no_grad keep the score's gradient from the inputs, and the sites behind."""
    names = _graph.names(graph)
    stops, live, todo = [], set[str](), [score_of(graph)]
    while todo:
        node = todo.pop()
        is_stop = node.meta.get(keys.RULE) == hold.RULE.name
        if node.name not in live:
            live.add(node.name)
            stops += [node] if is_stop else []
            todo += [] if is_stop else _graph.operands(node)
    if live & set(flow.inputs) or not stops:
        return "", []
    last = max(stops, key=list(graph.nodes).index)
    place = f"{last.meta.get(keys.SITE)} ({last.meta.get(keys.WHERE)})"
    words = f"the score's gradient stops at {place}, in torch.no_grad() or at a detach()"
    return words, [names[name].meta[keys.SITE] for name in flow.sites if name not in live]


_LAYERS = ("convolutions", "linear layers", "batch norms")


def _tell_lost(graph: fx.Graph, flow: Flow) -> None:
    """Layers without a map, because space could not be followed up to them, are told of."""
    names, sites = _graph.names(graph), set(flow.sites)
    reached = before([score_of(graph)], invertible=False)
    lost = [n for n in graph.nodes if n in reached and n.name not in sites and _is_lost(n)]
    if not lost:
        return
    leads = before(lost, invertible=False)
    first = next(n for n in graph.nodes
                 if n in leads and n.name not in sites
                 and any(x.name in sites for x in _graph.operands(n)))  # fmt: skip
    counts = Counter(map(_kind, lost))
    layers = [f"{counts[kind]} {kind}" for kind in _LAYERS if counts[kind]]
    warnings.warn(
        f"{' and '.join(layers)} have no map, from {names[lost[0].name].meta[keys.SITE]} on: at "
        f"{first.meta[keys.SITE]} ({first.meta.get(keys.WHERE)}), shape "
        f"{list(first.meta[keys.SHAPE])}, batch, channels and space can't be followed",
        NaflowWarning, stacklevel=2,
    )  # fmt: skip


def _kind(node: fx.Node) -> str:
    """Which of the layers that are counted a node is, or none."""
    rule = _graph.rule_of(node)
    if rule is None:
        return ""
    layer = "convolutions" if _graph.convolves(node) else "linear layers" if rule.kernel else ""
    return layer or ("batch norms" if rule.name == "batch_norm" else "")


def _is_lost(node: fx.Node) -> bool:
    """Whether a layer's dimensions are tokens, parts or mixtures; vectors and channels are not.

    Channels that stand twice (operands disagreed) and space beside a strip's one are lost, too.
    """
    if not _kind(node):
        return False
    labels = node.meta[keys.LABELS]
    unclear = set(labels) & {TOKENS, SPACE_PART, CHANNEL_PART, MIXED}
    strip = SPACE in labels and COLLAPSED in labels
    return len(labels) > 2 and (bool(unclear) or strip or labels.count(CHANNEL) > 1)
