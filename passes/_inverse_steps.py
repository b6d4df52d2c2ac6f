"""One inverse step: the nodes that bring Z from an operator's output to its input.

Four ways: the rule's own inverse, a damped diagonal, a closed form made at compile time, and
damped least squares; each returns what `build_inverse` notes on the call site.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from naflow_fx import keys, solve
from naflow_fx.options import Options
from naflow_fx.passes import _graph
from naflow_fx.passes._affine import AffineMap, emit_affine, merges_batch
from naflow_fx.passes._weights import Weights, is_layer
from naflow_fx.rule import Rule, parameters

START, CONTROL = "start", "control"
EXACT, DAMPED, CLOSED = "exact", "damped diagonal", "closed form"
LEAST_SQUARES, REPROPAGATED, REMAINDER = "least squares", "re-propagated", "remainder"

LOSSLESS = 1e-5  # relative; a float32 rounding error is a hundredth of it
MAX_CHANNELS = 4096  # a closed form beyond this takes minutes to make


@dataclass(frozen=True)
class Step:
    """How Z of a node was made: shown by `inspect`.

    Attributes:
        kind: one of the words above.
        equation: of the paper, or what stands for it.
        operators: the forward nodes that were inverted as one.
        node: the generated node of the inverse.
        region: "kind entry -> exit" of the innermost region, or "".
    """

    kind: str
    equation: str
    operators: tuple[str, ...]
    node: str
    region: str = ""


@dataclass(frozen=True)
class Made:
    """Z at an operator's input, the residual [N] of the step (None: 0), and how it was made.

    sigma: sigma_max of what was inverted, [N] or a constant; None where damping has no say.
    """

    z: fx.Node
    residual: fx.Node | None
    step: Step
    sigma: fx.Node | None = None


class StepWriter:
    """Writes inverse steps into a graph at its insertion point."""

    def __init__(self, gm: fx.GraphModule, options: Options, names: Mapping[str, fx.Node]) -> None:
        self.gm, self.graph, self.names = gm, gm.graph, names
        self.inverse, self.options = options.inverse, options
        self.sizes: dict[str, fx.Node] = {}
        self.weights = Weights(gm, names, self.inverse.precision == "bfloat16")

    def exact(self, node: fx.Node, target: fx.Node) -> Made:
        """The rule's own inverse."""
        rule = _rule(node)
        assert rule.inverse is not None
        state = self.state(node) | {"damping": self.inverse.damping}
        leading: tuple[Any, ...] = (target,)
        if rule.variadic:  # one activation and constants, as in x - 0.5
            leading, state = (target, state["active"][0]), state | {"values": [None]}
        z = _graph.call(self.graph, rule.inverse, leading, state, f"{node.name}_inverse")
        if self._is_lossless(node):
            mark(node, z)
            return Made(z, None, Step(EXACT, rule.equation, (node.name,), z.name))
        damped = "damping" in parameters(rule.inverse) and rule.diagonal is not None
        sigma = None if is_number(node) or not damped else self._sigma(node, self._diagonal(node))
        mark(node, z)
        return self._made([node], z, target, EXACT, rule.equation, sigma)

    def damped_diagonal(self, node: fx.Node, target: fx.Node) -> Made:
        """d (z - c) / (d^2 + damping max d^2), of a diagonal operator that stands alone."""
        rule = _rule(node)
        assert rule.diagonal is not None
        diagonal = self._diagonal(node)
        sigma = self._sigma(node, diagonal)
        shift = self._offset([node])
        prior = _source(node) if self.inverse.prior == "activation" else None
        arguments = (target, diagonal, shift, prior, sigma, self.inverse.damping)
        z = self._call(solve.damped_diagonal, arguments, f"{node.name}_inverse")
        mark(node, z)
        return self._made([node], z, target, DAMPED, f"damped {rule.equation}", sigma)

    def closed_form(self, chain: list[fx.Node], target: fx.Node) -> Made | None:
        """A pointwise layer of constants, with constant scales: one matrix, made once.

        None where it isn't one, or where options ask for something that depends on the sample.
        """
        inverse, first = self.inverse, chain[0]
        plain = (inverse.weight, inverse.rows, inverse.prior) == ("none", "all", "zero")
        if not plain or not self._pointwise(first) or not all(map(self._is_constant, chain[1:])):
            return None
        rule, state = _rule(first), self.state(first)
        weight: Any = first.kwargs["weight"]
        dense = _graph.call(self.graph, _given(rule.dense), (), state, f"{first.name}_dense")
        scales = [self._diagonal(node) for node in chain[1:]]
        sigma = None
        if inverse.damping:
            name = f"{first.name}_sigma_max"
            sigma = self._call(solve.channel_sigma_max, (dense, scales), name)
        matrix = self._call(
            solve.channel_inverse,
            (dense, scales, sigma, inverse.damping, weight.meta[keys.SHAPE]),
            f"{first.name}_inverse_weight",
        )
        wanted = self._wanted(chain, target)
        state = state | {"weight": matrix}
        z = _graph.call(self.graph, rule.linear, (wanted,), state, f"{first.name}_inverse")
        mark(first, dense, sigma, matrix, z)
        return self._made(chain, z, target, CLOSED, rule.equation, sigma, wanted)

    def least_squares(
        self, nodes: Sequence[fx.Node], entry: fx.Node, target: fx.Node, equation: str
    ) -> Made:
        """One `solve.LeastSquares` for the affine map from `entry` to the last of `nodes`."""
        inverse, exit = self.inverse, nodes[-1]
        affine = AffineMap(nodes, entry, self.weights)
        module = solve.LeastSquares(
            affine.linear, affine.transpose, affine.offset, entry.meta[keys.SHAPE],
            inverse.damping, self._steps(nodes), self._leading(entry, exit),
            _groups(nodes), affine.weights, self._whole(nodes), affine.packings,
        )  # fmt: skip
        path = f"inverse.{exit.name}"
        self.gm.add_submodule(path, module)
        weight = self._weight(exit)
        sigma = None
        constant = bool(affine.needs) and all(map(self.weights.is_known, affine.needs))
        if weight is None and inverse.damping and constant:
            sigma = self._call(f"{path}.sigma_max", tuple(affine.needs), f"{exit.name}_sigma_max")
        prior = entry if inverse.prior == "activation" else None
        arguments = (target, sigma, weight, prior, *affine.needs)
        solved = self._call(path, arguments, f"{exit.name}_solved")
        z, residual, estimated = (
            self._call(operator.getitem, (solved, i), f"{exit.name}_{part}")
            for i, part in enumerate(("least_squares", "residual", "sigma_estimate"))
        )
        mark(exit, weight, sigma, solved, z, residual, estimated)
        step = Step(LEAST_SQUARES, equation, tuple(node.name for node in nodes), z.name)
        return Made(z, residual, step, (sigma or estimated) if inverse.damping else None)

    def _made(
        self,
        chain: list[fx.Node],
        z: fx.Node,
        target: fx.Node,
        kind: str,
        equation: str,
        sigma: fx.Node | None = None,
        wanted: fx.Node | None = None,
    ) -> Made:
        """With the residual ||A z_x - (z_y - c)|| / ||z_y - c||."""
        first, last = chain[0], chain[-1]
        values: dict[fx.Node, Any] = {_source(first): z}
        emit_affine(self.graph, chain, values, self.state, _itself, shifts=False, suffix="again")
        wanted = wanted or self._wanted(chain, target)
        arguments = (values[last], wanted, self.size(first, wanted))
        residual = self._call(solve.relative_residual, arguments, f"{first.name}_residual")
        mark(first, *(values[node] for node in chain), residual)
        step = Step(kind, equation, tuple(n.name for n in chain), z.name)
        return Made(z, residual, step, sigma)

    def size(self, source: fx.Node, z: fx.Node) -> fx.Node:
        """||z|| per sample, [N], in the solver's dtype: one node, whoever asks first."""
        if keys.SIZE not in z.meta:
            made = self._call(solve.size, (z,), f"{z.name}_size")
            mark(source, made)
            z.meta[keys.SIZE] = made.name
            self.sizes[made.name] = made
        return self.sizes[z.meta[keys.SIZE]]

    def _is_lossless(self, node: fx.Node) -> bool:
        """Whether A A^-1 z = z whatever z is: told from constants, by one random z."""
        rule = _rule(node)
        assert rule.inverse is not None
        if rule.variadic or merges_batch(node):
            return False
        offered = self.state(node) | {"damping": self.inverse.damping}
        inverse, linear = (
            {name: offered[name] for name in parameters(function)[1:] if name in offered}
            for function in (rule.inverse, rule.linear)
        )
        if not all(map(_graph.is_constant, _graph.uses((inverse, linear)))):
            return False
        single = partial(solve.widen, dtype=torch.float32)
        known = _graph.resolve((inverse, linear), self.gm)
        inverse, linear = pytree.tree_map_only(torch.Tensor, single, known)
        tensors = [x for x in pytree.tree_leaves((inverse, linear)) if isinstance(x, torch.Tensor)]
        generator = torch.Generator().manual_seed(0)
        shape = [1 if size == -1 else size for size in node.meta[keys.SHAPE]]
        z = torch.randn(shape, generator=generator).to(tensors[0].device if tensors else "cpu")
        v = rule.inverse(z, **inverse) - rule.inverse(torch.zeros_like(z), **inverse)
        lost = rule.linear(v, **linear) - z
        return bool(lost.norm() <= LOSSLESS * z.norm())

    def _wanted(self, chain: list[fx.Node], target: fx.Node) -> fx.Node:
        """z - c."""
        offset = self._offset(chain)
        if offset is None:
            return target
        wanted = self._call(operator.sub, (target, offset), f"{chain[0].name}_wanted")
        mark(chain[0], wanted)
        return wanted

    def _offset(self, chain: list[fx.Node]) -> fx.Node | None:
        """c of a chain; None where it is 0."""
        if not any(map(_graph.has_shift, chain)):
            return None
        values: dict[fx.Node, Any] = {_source(chain[0]): None}
        emit_affine(self.graph, chain, values, self.state, _itself, shifts=True, suffix="shift")
        mark(chain[0], *(values[node] for node in chain))
        offset: fx.Node = values[chain[-1]]
        return offset

    def state(self, node: fx.Node) -> _graph.State:
        """All that a node's rule may ask for."""
        return _graph.state(node, self.names)

    def _pointwise(self, node: fx.Node) -> bool:
        rule = _rule(node)
        weight: Any = node.kwargs.get("weight")
        if rule.dense is None or max(weight.meta[keys.SHAPE][:2]) > MAX_CHANNELS:
            return False
        known = _graph.resolve(dict(node.kwargs), self.gm)
        return rule.dense(**{name: known[name] for name in parameters(rule.dense)}) is not None

    def _is_constant(self, node: fx.Node) -> bool:
        captured = [self.names[n] for n in node.meta.get(keys.CAPTURES, {}).values()]
        return bool(captured) and all(map(_graph.is_constant, captured))

    def _diagonal(self, node: fx.Node) -> fx.Node:
        state = self.state(node)
        name = f"{node.name}_diagonal"
        made = _graph.call(self.graph, _given(_rule(node).diagonal), (), state, name)
        mark(node, made)
        return made

    def _sigma(self, node: fx.Node, diagonal: fx.Node) -> fx.Node | None:
        """sigma_max of a diagonal operator; None at damping 0."""
        if not self.inverse.damping:
            return None
        shapes = (_source(node).meta[keys.SHAPE], node.meta[keys.SHAPE])
        made = self._call(solve.diagonal_sigma_max, (diagonal, *shapes), f"{node.name}_sigma_max")
        mark(node, made)
        return made

    def _whole(self, nodes: Sequence[fx.Node]) -> bool:
        """Whether all layers multiply in bfloat16, so that nothing is gained by going back."""
        layers = list(filter(is_layer, nodes))
        return bool(layers) and all(map(self.weights.is_low, layers))

    def _steps(self, nodes: Sequence[fx.Node]) -> int:
        if not _is_alone(nodes):
            return self.options.steps
        apart = _groups(nodes) == nodes[0].meta[keys.SHAPE][1]
        return self.options.steps_apart if apart else self.options.steps_layer

    def _leading(self, entry: fx.Node, exit: fx.Node) -> int | None:
        """The number of output neurons that Eq. 6 keeps; None: all."""
        p, q = (math.prod(node.meta[keys.SHAPE][1:]) for node in (entry, exit))
        return p if self.inverse.rows == "leading" and p < q else None

    def _weight(self, exit: fx.Node) -> fx.Node | None:
        importance = exit.meta.get(keys.IMPORTANCE)
        if self.inverse.weight == "none" or importance is None:
            return None
        arguments = (self.names[importance], self.inverse.clip)
        return self._call(solve.importance_weight, arguments, f"{exit.name}_weight")

    def _call(self, target: Any, args: tuple[Any, ...], name: str) -> fx.Node:
        kind = "call_module" if isinstance(target, str) else "call_function"
        return self.graph.create_node(kind, target, args, {}, name=name)


def _groups(nodes: Sequence[fx.Node]) -> int:
    """Groups of channels that a layer and the diagonal operators after it don't mix."""
    groups: Any = nodes[0].kwargs.get("groups", 1)
    return int(groups) if _is_alone(nodes) else 1


def _is_alone(nodes: Sequence[fx.Node]) -> bool:
    """Whether they are one layer, and diagonal operators behind it."""
    return is_layer(nodes[0]) and all(_rule(node).diagonal for node in nodes[1:])


def is_number(node: fx.Node) -> bool:
    """Whether a diagonal is one number, by which dividing is exact."""
    return "gate" in node.kwargs and not isinstance(node.kwargs["gate"], fx.Node)


def mark(source: fx.Node, *nodes: fx.Node | None) -> None:
    """Notes which forward node generated nodes of the inverse serve."""
    for node in nodes:
        if node is not None:
            node.meta.setdefault(keys.PART, "inverse")
            node.meta.setdefault(keys.SOURCE, source.name)


def _rule(node: fx.Node) -> Rule:
    rule = _graph.rule_of(node)
    assert rule is not None
    return rule


def _given(function: Any) -> Any:
    assert function is not None
    return function


def _source(node: fx.Node) -> fx.Node:
    return _graph.operands(node, invertible=True)[0]


def _itself(node: fx.Node) -> fx.Node:
    return node
