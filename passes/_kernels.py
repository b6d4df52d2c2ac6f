"""The kernels of layers as the solver's steps take them: nodes that are folded at compile time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, fx

from naflow_fx import keys
from naflow_fx.passes import _graph
from naflow_fx.passes._write import Writer
from naflow_fx.solver import least_squares

Offers = dict[fx.Node, _graph.State]


class Kernels:
    """Constant kernels, with the constant scale of the operator behind them in them.

    Args:
        gm: the module whose graph is extended.
        write: into that graph.
        low: dense layers multiply in bfloat16.

    Attributes:
        made: the nodes of kept kernels.
    """

    def __init__(self, gm: fx.GraphModule, write: Writer, low: bool) -> None:
        self.gm, self.write, self.low = gm, write, low
        self.made: set[fx.Node] = set()
        self._kept: dict[tuple[fx.Node, fx.Node | None], fx.Node] = {}

    def offers(self, nodes: Sequence[fx.Node]) -> tuple[Offers, set[fx.Node]]:
        """What each node's rule may ask for in a step, and the scales that are in kernels now."""
        scales = self._scales(nodes)
        offers = {node: self.write.offer(node) for node in nodes}
        for node, offered in offers.items():
            if has_constant_kernel(node):
                offered[_graph.rule(node).kernel] = self._keep(node, scales.get(node))
        return offers, set(scales.values())

    def is_low(self, layer: fx.Node) -> bool:
        """Whether a layer multiplies all channels by its kernel, in bfloat16: for matrix units."""
        if not self.low or not has_constant_kernel(layer) or groups_of(layer) != 1:
            return False
        kernel: Any = _graph.resolve(layer.kwargs[_graph.rule(layer).kernel], self.gm)
        return bool(kernel.element_size() < 8)  # float64 keeps its precision

    def _keep(self, layer: fx.Node, scale: fx.Node | None) -> fx.Node:
        if (layer, scale) not in self._kept:
            rule, call = _graph.rule(layer), self.write.call
            kernel: Any = layer.kwargs[rule.kernel]
            if scale is not None:
                diagonal = self.write.ask(
                    scale, _graph.rule(scale).diagonal, (), "solver_scale", of=layer
                )
                kernel = call(layer, rule.scaled, (kernel, diagonal), "solver_scaled")
            leading = (kernel, self.is_low(layer))
            made = call(layer, least_squares.kernel_of_steps, leading, "solver_kernel")
            self._kept[layer, scale] = made
            self.made.add(made)
        return self._kept[layer, scale]

    def _scales(self, nodes: Sequence[fx.Node]) -> dict[fx.Node, fx.Node]:
        """Layer -> the constant scale of its channels that comes next, where nothing is between."""
        found, inside = {}, set(nodes)
        for layer in filter(has_constant_kernel, nodes):
            behind = [user for user in layer.users
                      if user in inside and layer in _graph.sources(user)]  # fmt: skip
            scalable = _graph.rule(layer).scaled is not None and not _graph.has_shift(layer)
            if scalable and len(behind) == 1 and self._scales_channels(behind[0]):
                found[layer] = behind[0]
        return found

    def _scales_channels(self, node: fx.Node) -> bool:
        """Whether an operator's d is one constant number for each channel."""
        function, state = _graph.rule(node).diagonal, self.write.offer(node)
        if function is None:
            return False
        known = _graph.resolve(_graph.asked(function, state), self.gm)
        if known is None:
            return False
        channels, *space = node.meta[keys.SHAPE][1:]
        diagonal = function(**known)
        shape = (1, channels, *(1,) * len(space))
        return isinstance(diagonal, Tensor) and tuple(diagonal.shape) == shape


def has_constant_kernel(node: fx.Node) -> bool:
    """Whether a node multiplies a kernel that the compiler knows."""
    kernel = node.kwargs.get(_graph.rule(node).kernel or "")
    return isinstance(kernel, fx.Node) and _graph.is_constant(kernel)


def groups_of(layer: fx.Node) -> int:
    """Groups of channels that a layer does not mix."""
    function = _graph.rule(layer).groups
    return 1 if function is None else int(function(**_graph.asked(function, layer.kwargs)))
