"""label_dimensions: which dimension of every node is batch, channel, space."""

from __future__ import annotations

from torch import fx

from naflow_fx import keys
from naflow_fx.passes import _graph, _module
from naflow_fx.passes._kernels import groups_of
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
