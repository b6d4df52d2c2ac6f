"""label_dimensions: which dimension of every node is batch, channel, space."""

from __future__ import annotations

from torch import fx

from naflow_fx import keys
from naflow_fx.passes import _graph
from naflow_fx.rule import (
    BATCH,
    CHANNEL,
    CHANNEL_PART,
    COLLAPSED,
    MIXED,
    SPACE,
    Labels,
    parameters,
)


def label_dimensions(gm: fx.GraphModule) -> fx.GraphModule:
    """Every active node gets `keys.LABELS`, from the input's (N, C, S, ...) by the rules.

    Before: a canonical graph.  After: the same with labels.
    """
    new = _graph.copy(gm)
    for node in new.graph.nodes:
        if node.op == "placeholder":
            rank = len(node.meta[keys.SHAPE])
            node.meta[keys.LABELS] = (BATCH, CHANNEL, *(SPACE,) * (rank - 2))[:rank]
        elif node.meta.get(keys.RULE):
            node.meta[keys.LABELS] = _labels(node)
    return new


def is_spatial(node: fx.Node) -> bool:
    """Whether a node still has a batch with space: the cascade runs through it."""
    batch = -1 in node.meta.get(keys.SHAPE, ())  # a score of one sample drops it
    return batch and any(label in "Ss" for label in node.meta.get(keys.LABELS, ()))


def is_site_shaped(labels: Labels) -> bool:
    """Whether the dimensions are batch, channel and space, each tracked."""
    return (
        labels.count(BATCH) == 1
        and labels.count(CHANNEL) == 1
        and SPACE in labels
        and set(labels) <= {BATCH, CHANNEL, SPACE}
    )


def _labels(node: fx.Node) -> Labels:
    rule = _graph.rule_of(node)
    assert rule is not None
    labels = _merged(node)
    if rule.labels is None:
        found = labels
    else:
        offered = _graph.state(node, {})
        wanted = parameters(rule.labels)[1:]
        found = rule.labels(labels, **{name: offered[name] for name in wanted if name in offered})
    shape = node.meta[keys.SHAPE]
    return _with_channels(tuple(found)) if len(found) == len(shape) else (MIXED,) * len(shape)


def _with_channels(labels: Labels) -> Labels:
    """A single part of the channels that is left, or their collapsed dimension, is the channels."""
    if CHANNEL in labels:
        return labels
    if labels.count(CHANNEL_PART) == 1:
        return tuple(CHANNEL if label == CHANNEL_PART else label for label in labels)
    alone = labels.count(COLLAPSED) == 1 and set(labels) == {BATCH, SPACE, COLLAPSED}
    return tuple(CHANNEL if alone and label == COLLAPSED else label for label in labels)


def _merged(node: fx.Node) -> Labels:
    """The operands' labels, aligned at the last dimension; space wins over a collapsed one."""
    rows = [operand.meta[keys.LABELS] for operand in _graph.operands(node)]
    if not rows:
        return ("?",) * len(node.meta[keys.SHAPE])
    width = max(map(len, rows))
    aligned = [("1",) * (width - len(row)) + tuple(row) for row in rows]
    rank = "NCScs?1"
    return tuple(min(column, key=rank.index) for column in zip(*aligned, strict=True))
