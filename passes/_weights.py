"""The weights of layers as the solver's steps take them: made once, at compile time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx

from naflow_fx import keys, solve
from naflow_fx.passes import _graph
from naflow_fx.rule import Function, Rule, parameters

LAYERS = ("conv", "conv_transpose", "linear")
Offers = dict[fx.Node, _graph.State]
Packing = Callable[[Tensor], Tensor]


class Weights:
    """Constant weights, with the scale of a batch norm behind them in them, and turned ones.

    Args:
        gm: the module whose graph is extended.
        names: its nodes.
        low: dense layers multiply in bfloat16.

    Attributes:
        made: the nodes of stored weights.
        packings: how each of those that only convolutions take is packed for a solve.
    """

    def __init__(self, gm: fx.GraphModule, names: Mapping[str, fx.Node], low: bool) -> None:
        self.gm, self.names, self.low = gm, names, low
        self.made: set[fx.Node] = set()
        self.packings: dict[fx.Node, Packing] = {}
        self._offered: dict[tuple[fx.Node, fx.Node | None], dict[str, fx.Node]] = {}

    def offers(self, nodes: Sequence[fx.Node]) -> tuple[Offers, list[fx.Node]]:
        """What each node's rule may ask for in a step, and the scales that are in weights now."""
        scales = self._scales(nodes)
        offers = {node: _graph.state(node, self.names) for node in nodes}
        for node, offered in offers.items():
            if self._is_constant_layer(node):
                offered |= self._of(node, scales.get(node))
        return offers, list(scales.values())

    def is_low(self, layer: fx.Node) -> bool:
        """Whether a layer multiplies all channels by its weight, in bfloat16: for matrix units."""
        if not self.low or not self._is_constant_layer(layer) or not _is_dense(layer):
            return False
        weight: Tensor = _graph.resolve(layer.kwargs["weight"], self.gm)
        return weight.dtype != torch.float64

    def _of(self, layer: fx.Node, scale: fx.Node | None) -> dict[str, fx.Node]:
        """The layer's "weight" and, of one that multiplies all channels, "turned"."""
        if (layer, scale) not in self._offered:
            rule, state = _rule(layer), _graph.state(layer, self.names)
            if scale is not None:
                known = _graph.state(scale, self.names)
                diagonal = self._call(layer, _rule(scale).diagonal, (), known, "scale")
                leading = (state["weight"], diagonal)
                state["weight"] = self._call(layer, rule.scaled, leading, {}, "scaled")
            made = {"weight": self._stored(layer, state["weight"], "weight")}
            if _is_dense(layer) and _turned_shape(layer) is not None:
                turned = self._call(layer, rule.turned, (), state, "turned")
                made["turned"] = self._stored(layer, turned, "turned_weight")
                self._pack(layer, made)
            self._offered[layer, scale] = made
        return self._offered[layer, scale]

    def _stored(self, layer: fx.Node, weight: fx.Node, what: str) -> fx.Node:
        leading = (weight, self.is_low(layer))
        made = self._call(layer, solve.stored_weight, leading, {}, f"solver_{what}")
        self.made.add(made)
        return made

    def _pack(self, layer: fx.Node, made: Mapping[str, fx.Node]) -> None:
        function = _rule(layer).packed
        if function is None:
            return
        weight = layer.kwargs["weight"]
        assert isinstance(weight, fx.Node)
        given = {name: layer.kwargs[name] for name in parameters(function)[3:]}
        given["shape"] = weight.meta[keys.SHAPE]
        for name, node in made.items():
            self.packings[node] = partial(function, is_turned=name == "turned", **given)

    def _call(
        self,
        layer: fx.Node,
        function: Function | None,
        leading: tuple[Any, ...],
        state: _graph.State,
        what: str,
    ) -> fx.Node:
        assert function is not None
        made = _graph.call(self.gm.graph, function, leading, state, f"{layer.name}_{what}")
        made.meta |= {keys.PART: "inverse", keys.SOURCE: layer.name}
        return made

    def is_known(self, node: fx.Node) -> bool:
        """Whether a need of steps is a constant, or will be one."""
        return _graph.is_constant(node) or node in self.made

    def _scales(self, nodes: Sequence[fx.Node]) -> dict[fx.Node, fx.Node]:
        """Layer -> the constant scale of its channels that comes next, where nothing is between."""
        readers: dict[fx.Node, list[fx.Node]] = {}
        for node in nodes:
            for operand in _graph.operands(node, invertible=True):
                readers.setdefault(operand, []).append(node)
        found = {}
        for layer in filter(self._is_constant_layer, nodes):
            behind = readers.get(layer, [])
            scalable = _rule(layer).scaled is not None and not _graph.has_shift(layer)
            if scalable and len(behind) == 1 and self._scales_channels(behind[0]):
                found[layer] = behind[0]
        return found

    def _scales_channels(self, node: fx.Node) -> bool:
        """Whether an operator's d is one constant number for each channel."""
        function, state = _rule(node).diagonal, _graph.state(node, self.names)
        if function is None:
            return False
        wanted = {name: state[name] for name in parameters(function)}
        if not all(map(_graph.is_constant, _graph.uses(wanted))):
            return False
        channels, *space = node.meta[keys.SHAPE][1:]
        diagonal = function(**_graph.resolve(wanted, self.gm))
        return tuple(diagonal.shape) == (1, channels, *(1,) * len(space))

    def _is_constant_layer(self, node: fx.Node) -> bool:
        weight = node.kwargs.get("weight")
        return is_layer(node) and isinstance(weight, fx.Node) and _graph.is_constant(weight)


def is_layer(node: fx.Node) -> bool:
    """Whether a node multiplies a weight."""
    return _rule(node).name in LAYERS


def turns_strided(node: fx.Node) -> bool:
    """Whether A^T of a strided layer of constants, of a kernel, is a convolution: far faster."""
    weight: Any = node.kwargs.get("weight")
    stride: Any = node.kwargs.get("stride", ())
    if not isinstance(weight, fx.Node) or not _graph.is_constant(weight):
        return False
    shape = weight.meta[keys.SHAPE]
    kernel = not set(stride) <= {1} and math.prod(shape[2:]) > 1
    return kernel and _turned_shape(node) not in (None, tuple(shape))


def _is_dense(layer: fx.Node) -> bool:
    """Whether a layer mixes all channels."""
    groups: Any = layer.kwargs.get("groups", 1)
    return int(groups) == 1


def _turned_shape(layer: fx.Node) -> tuple[int, ...] | None:
    """Of the weight of a layer's A^T, where it has one."""
    turned, weight = _rule(layer).turned, layer.kwargs["weight"]
    if turned is None:
        return None
    assert isinstance(weight, fx.Node)
    known = dict(layer.kwargs)
    known["weight"] = torch.empty(weight.meta[keys.SHAPE], device="meta")
    made = turned(**{name: known[name] for name in parameters(turned)})
    return None if made is None else tuple(made.shape)


def _rule(node: fx.Node) -> Rule:
    rule = _graph.rule_of(node)
    assert rule is not None, f"{node.name} has no rule"
    return rule
