"""label_dimensions: which dimension of every node is batch, channel, space; what lacks a map."""

from __future__ import annotations

import warnings
from collections import Counter

from torch import fx

from naflow_fx import keys
from naflow_fx.errors import GraphError, NaflowWarning
from naflow_fx.passes import _graph, _module
from naflow_fx.passes._kernels import groups_of
from naflow_fx.passes.find_flow import Flow, find_flow, score_of
from naflow_fx.rules import hold
from naflow_fx.rules.contract import (
    BATCH,
    CHANNEL,
    CHANNEL_PART,
    COLLAPSED,
    MIXED,
    SPACE,
    SPACE_PART,
    TOKENS,
    Labels,
)

Sizes = dict[fx.Node, tuple[int, ...]]


def label_dimensions(gm: fx.GraphModule) -> fx.GraphModule:
    """Every active node gets `keys.LABELS`, from the input's (N, C, S, ...) by the rules.

    Before: a canonical graph.  After: the same with labels.
    """
    new = _module.copy(gm)
    sizes: Sizes = {}
    for node in new.graph.nodes:
        if node.op == "placeholder":
            rank = len(node.meta[keys.SHAPE])
            node.meta[keys.LABELS] = (BATCH, CHANNEL, *(SPACE,) * rank)[:rank]
        elif node.meta.get(keys.RULE):
            labels = _restored(node, _convolved(node, _labels(node)), sizes)
            if node.meta.get(keys.MERGED):
                labels = _renamed(labels, BATCH, MIXED)
            node.meta[keys.LABELS] = labels
        _note_sizes(node, sizes)
    return new


def _note_sizes(node: fx.Node, sizes: Sizes) -> None:
    """The sizes of a node's space, or of the space that its tokens came from."""
    if keys.LABELS not in node.meta:
        return
    named = zip(node.meta[keys.SHAPE], node.meta[keys.LABELS], strict=True)
    own = tuple(n for n, label in named if label == SPACE)
    before = (sizes[x] for x in _graph.operands(node) if x in sizes)
    if found := own or next(before, ()):
        sizes[node] = found


def _restored(node: fx.Node, labels: Labels, sizes: Sizes) -> Labels:
    """Tokens that a reshape gives the sizes of their space again are space."""
    shape = node.meta[keys.SHAPE]
    split = tuple(n for n, label in zip(shape, labels, strict=True) if label == SPACE_PART)
    for x in _graph.operands(node)[:1]:
        before = x.meta[keys.LABELS]
        whole = before.count(TOKENS) == 1 and SPACE_PART not in before
        if split and whole and split == sizes.get(x):
            return _renamed(labels, SPACE_PART, SPACE)
    return labels


def _convolved(node: fx.Node, labels: Labels) -> Labels:
    """A convolution makes channels, and what it runs along is space: electrodes, too.

    So for the views [N, 1, electrodes, time] and [N, C, 1, time] that a convolution reads; one
    along channels alone (ECA) stays what it is, and so do rows that each have a kernel of their own
    (DiCE).
    """
    if labels[:1] != (BATCH,) or SPACE not in labels or _keeps_rows(node, labels):
        return labels
    if not _graph.convolves(node):
        if not _leads_to_conv(node):
            return labels
        if labels[1] == CHANNEL and _inserts(node, labels):
            return _renamed(labels, COLLAPSED, SPACE)
        if labels[1] != COLLAPSED or CHANNEL not in labels[2:]:
            return labels
    if not set(labels[2:]) <= {SPACE, CHANNEL, COLLAPSED}:
        return labels
    return (BATCH, CHANNEL, *(COLLAPSED if x == COLLAPSED else SPACE for x in labels[2:]))


def _inserts(node: fx.Node, labels: Labels) -> bool:
    """Whether a view has a dimension of one that its input has not; a pool's strip has it."""
    before = [len(x.meta[keys.LABELS]) for x in _graph.operands(node)]
    return COLLAPSED in labels and before == [len(labels) - labels.count(COLLAPSED)]


def _keeps_rows(node: fx.Node, labels: Labels) -> bool:
    """Whether a depthwise convolution runs along channels and space, row by row."""
    if not _graph.convolves(node):
        return False
    rows = groups_of(node)
    inputs = [x.meta[keys.SHAPE][1] for x in _graph.operands(node)]
    depthwise = rows == node.meta[keys.SHAPE][1] and inputs == [rows]
    return depthwise and labels[1] == SPACE and CHANNEL in labels[2:]


def _leads_to_conv(node: fx.Node) -> bool:
    """Whether a view is read by a convolution, directly or through other views."""
    rule = _graph.rule_of(node)
    if rule is None or not rule.view:
        return False
    return any(_graph.convolves(reader) or _leads_to_conv(reader) for reader in node.users)


def _labels(node: fx.Node) -> Labels:
    """What the rule makes of the operands' labels."""
    function, labels, rank = _graph.rule(node).labels, _merged(node), len(node.meta[keys.SHAPE])
    if function is not None:
        labels = tuple(function(labels, **_graph.asked(function, _graph.state(node, {}), 1)))
    return _with_channels(labels) if len(labels) == rank else (MIXED,) * rank


def _with_channels(labels: Labels) -> Labels:
    """A single part of the channels that is left, or their collapsed dimension, is the channels."""
    if CHANNEL in labels:
        return labels
    if labels.count(CHANNEL_PART) == 1:
        return _renamed(labels, CHANNEL_PART, CHANNEL)
    alone = labels.count(COLLAPSED) == 1 and set(labels) == {BATCH, SPACE, COLLAPSED}
    return _renamed(labels, COLLAPSED, CHANNEL) if alone else labels


def _renamed(labels: Labels, old: str, new: str) -> Labels:
    return tuple(new if label == old else label for label in labels)


def _merged(node: fx.Node) -> Labels:
    """The operands' labels, aligned at the last dimension; space wins over a collapsed one."""
    rows = [operand.meta[keys.LABELS] for operand in _graph.operands(node)]
    if not rows:
        return ("?",) * len(node.meta[keys.SHAPE])
    width = max(map(len, rows))
    aligned = [("1",) * (width - len(row)) + tuple(row) for row in rows]
    rank = "NCSTcs?1"
    return tuple(min(column, key=rank.index) for column in zip(*aligned, strict=True))


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
    live = _graph.reached([score_of(graph)], lambda n: [] if _holds(n) else _graph.operands(n))
    stops = list(filter(_holds, live))
    if not stops or any(node in live for node in flow.inputs):
        return "", []
    last = max(stops)
    place = f"{last.meta.get(keys.SITE)} ({last.meta.get(keys.WHERE)})"
    words = f"the score's gradient stops at {place}, in torch.no_grad() or at a detach()"
    return words, [node.meta[keys.SITE] for node in flow.sites if node not in live]


def _holds(node: fx.Node) -> bool:
    return bool(node.meta.get(keys.RULE) == hold.RULE.name)


_LAYERS = ("convolutions", "linear layers", "batch norms")


def _tell_lost(graph: fx.Graph, flow: Flow) -> None:
    """Layers without a map, because space could not be followed up to them, are told of."""
    sites = set(flow.sites)
    reached = _graph.reached([score_of(graph)], _graph.operands)
    lost = sorted(filter(_is_lost, reached - sites))
    if not lost:
        return
    leads = _graph.reached(lost, _graph.operands)
    first = min(n for n in leads - sites if not sites.isdisjoint(_graph.operands(n)))
    counts = Counter(map(_kind, lost))
    layers = [f"{counts[kind]} {kind}" for kind in _LAYERS if counts[kind]]
    warnings.warn(
        f"{' and '.join(layers)} have no map, from {lost[0].meta[keys.SITE]} on: at "
        f"{first.meta[keys.SITE]} ({first.meta.get(keys.WHERE)}), shape "
        f"{list(first.meta[keys.SHAPE])}, batch, channels and space can't be followed",
        NaflowWarning, stacklevel=2,
    )  # fmt: skip


def _kind(node: fx.Node) -> str:
    """Which of the layers that are counted a node is, or none."""
    rule = _graph.rule_of(node)
    if rule is None:
        return ""
    layer = "convolutions" if rule.convolves else "linear layers" if rule.kernel else ""
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
