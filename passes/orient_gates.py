"""orient_gates: which operand of a product of two activations is its gate."""

from __future__ import annotations

import math

from torch import fx

from naflow_fx import keys
from naflow_fx.passes import _graph, _module


def orient_gates(gm: fx.GraphModule) -> fx.GraphModule:
    """The gate of every product of two activations stands in the gate's place.

    The gate is captured, the other operand carries the cascade (docs/method.md 2).  It is, by the
    first of these that decides,

    1. the operand that the product itself broadcasts: ``x * g[:, :, None, None]``;
    2. the one that came through a squashing function (sigmoid, softmax, tanh), with nothing but
       views, resizing, arithmetic with constants and other such gates after it;
    3. the one that was expanded or resized before: ``g.expand_as(x) * x``;
    4. the one that was computed from the other: ``x * f(x)``;
    5. the second.

    Before: a canonical graph, operands as written.  After: the same values.  Left alone:
    products with a constant, and rules without `swap`.
    """
    new = _module.copy(gm)
    for node in new.graph.nodes:
        rule = _graph.rule_of(node)
        if rule is None or rule.swap is None or len(_graph.operands(node)) < 2:
            continue
        if _first_is_gate(node):
            node.kwargs = rule.swap(dict(node.kwargs))
    return new


def _first_is_gate(node: fx.Node) -> bool:
    first, second = _graph.operands(node)
    tests = [(_is_squashed(first), _is_squashed(second))]
    if _graph.rule(node).diagonal is not None:  # elementwise: sizes tell what was broadcast
        full = _size(node)
        tests.insert(0, (_size(first) < full, _size(second) < full))
        tests.append((_least(first) < full, _least(second) < full))
    tests.append((_is_made_of(first, second), _is_made_of(second, first)))
    return next((a for a, b in tests if a != b), False)


def _size(node: fx.Node) -> int:
    """Numbers per sample."""
    return math.prod(node.meta[keys.SHAPE][1:])


def _gating(node: fx.Node) -> str:
    rule = _graph.rule_of(node)
    return rule.gating if rule is not None else ""


def _is_squashed(node: fx.Node) -> bool:
    """Whether a squashing function bounds the node, directly or through carriers."""
    if _gating(node) == "carries":
        return all(map(_is_squashed, _graph.operands(node)))
    return _gating(node) == "squashes"


def _least(node: fx.Node) -> int:
    """The smallest size that the node had on its way through carriers."""
    operands = _graph.operands(node)
    if _gating(node) != "carries" or len(operands) != 1:
        return _size(node)
    return min(_size(node), _least(operands[0]))


def _is_made_of(node: fx.Node, source: fx.Node) -> bool:
    """Whether a node was computed from another."""
    return source in _graph.reached(_graph.operands(node), _graph.operands)
