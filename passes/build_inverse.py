"""build_inverse: the cascade, from the feature node back to the input, as graph nodes."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx

from naflow_fx import keys, solve
from naflow_fx.errors import GraphError
from naflow_fx.options import Options
from naflow_fx.passes import _graph
from naflow_fx.passes._affine import AffineMap, emit_affine
from naflow_fx.passes.find_flow import find_flow
from naflow_fx.passes.find_regions import SOURCE, Region, find_regions
from naflow_fx.passes.join_features import cascade_end
from naflow_fx.rule import parameters

START, EXACT, LEAST_SQUARES, CLOSED = "start", "exact", "least squares", "closed form"
DAMPED, REPROPAGATED, REMAINDER = "damped diagonal", "re-propagated", "remainder"
CONTROL = "control"


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


def build_inverse(gm: fx.GraphModule, options: Options) -> fx.GraphModule:
    """Adds one inverse step per operator and region (METHOD sections 2 to 4).

    Before: a canonical graph with captures (constants folded) and importance.  After: at every
    node of the cascade `keys.BPFM` names the node that holds Z, `keys.RESIDUAL` the residual of
    the step that made it, `keys.STEP` says how; nodes of control branches have Z = activation.

    Raises:
        GraphError: the cascade can't be built for this graph.
    """
    new = _graph.copy(gm)
    cascade = _Cascade(new, options)
    with new.graph.inserting_before(_graph.output_node(new.graph)):
        cascade.run()
    return _graph.rebuild(new, new.graph)


class _Cascade:
    def __init__(self, gm: fx.GraphModule, options: Options) -> None:
        self.gm, self.graph, self.options = gm, gm.graph, options
        self.names = _graph.names(gm.graph)
        self.flow = find_flow(gm.graph)
        self.end = cascade_end(gm)
        self.regions = find_regions(gm.graph, self.flow.cascade, self.end)
        self.z: dict[str, fx.Node] = {}
        self.inside: list[str] = []

    def run(self) -> None:
        end = self.names[self.end]
        self._set(end, end, None, Step(START, "forward activation", (), end.name))
        self._descend(SOURCE, self.end)
        for name in self.flow.sites:
            node = self.names[name]
            if self.flow.is_control(name):
                self._set(node, node, None, Step(CONTROL, "forward activation", (), name))

    def _descend(self, entry: str, exit: str) -> fx.Node | None:
        """From Z at `exit` back to `entry`; returns what the last step makes of it there."""
        at, estimate = exit, self.z[exit]
        while at != entry and _graph.operands(self.names[at], invertible=True):
            if at in self.regions.by_exit:
                region = self.regions.by_exit[at]
                estimate, at = self._region(region), region.entry
            else:
                estimate, at = self._step(self.names[at], entry)
        return estimate

    # One operator, or a convolution with the diagonal operators that follow it.

    def _step(self, node: fx.Node, entry: str) -> tuple[fx.Node, str]:
        chain = self._chain(node)
        for later, earlier in zip(reversed(chain[1:]), reversed(chain[:-1]), strict=True):
            self._own(later, earlier)
        source = _graph.operands(chain[0], invertible=True)[0]
        z, residual, step = self._invert(chain, source)
        if source.name != entry or self.options.residual == "capture":
            self._set(source, z, residual, step)
        return z, source.name

    def _chain(self, node: fx.Node) -> list[fx.Node]:
        """A least-squares operator and the diagonal ones up to `node`, or `node` alone."""
        chain = [node]
        while _is_diagonal(chain[0]):
            source = _graph.operands(chain[0], invertible=True)[0]
            rule = _graph.rule_of(source)
            if rule is None or len(_readers(source)) > 1:
                return [node]
            chain.insert(0, source)
        return chain if _graph.rule_of(chain[0]).inverse is None else [node]  # type: ignore[union-attr]

    def _own(self, later: fx.Node, earlier: fx.Node) -> None:
        """The map of a site inside a chain: Eqs. 11 and 13, never a target of a least squares."""
        z, residual, step = self._exact(later, self.z[later.name])
        self._set(earlier, z, residual, step)

    def _invert(self, chain: list[fx.Node], source: fx.Node) -> tuple[fx.Node, Any, Step]:
        first, target = chain[0], self.z[chain[-1].name]
        rule = _graph.rule_of(first)
        assert rule is not None
        if rule.inverse is None:
            closed = self._closed_form(chain, target)
            return closed or self._least_squares(chain, source, target, rule.equation)
        if len(chain) == 1 and _is_diagonal(first) and _is_captured(first):
            return self._damped_diagonal(first, source, target)
        return self._exact(first, target)

    def _exact(self, node: fx.Node, target: fx.Node) -> tuple[fx.Node, fx.Node, Step]:
        rule = _graph.rule_of(node)
        assert rule is not None and rule.inverse is not None
        state = _graph.state(node, self.names) | {"damping": self.options.inverse.damping}
        z = _graph.call(self.graph, rule.inverse, (target,), state, f"{node.name}_inverse")
        residual = self._check(node, z, target)
        self._mark(node, z, residual)
        return z, residual, Step(EXACT, rule.equation, (node.name,), z.name)

    def _damped_diagonal(
        self, node: fx.Node, source: fx.Node, target: fx.Node
    ) -> tuple[fx.Node, fx.Node, Step]:
        rule = _graph.rule_of(node)
        assert rule is not None and rule.diagonal is not None
        state = _graph.state(node, self.names)
        diagonal = _graph.call(self.graph, rule.diagonal, (), state, f"{node.name}_diagonal")
        shift = None
        if rule.shift is not None:
            shift = _graph.call(self.graph, rule.shift, (), state, f"{node.name}_shift")
        prior = source if self.options.inverse.prior == "activation" else None
        z = self.graph.create_node(
            "call_function", solve.damped_diagonal,
            (target, diagonal, shift, prior, self.options.inverse.damping), {},
            name=f"{node.name}_inverse",
        )  # fmt: skip
        residual = self._check(node, z, target)
        self._mark(node, diagonal, shift, z, residual)
        return z, residual, Step(DAMPED, f"damped {rule.equation}", (node.name,), z.name)

    def _check(self, node: fx.Node, z: fx.Node, target: fx.Node) -> fx.Node:
        """The residual of one operator's step: ||A z_x - (z_y - c)|| / ||z_y - c||."""
        values: dict[fx.Node, Any] = {_graph.operands(node, invertible=True)[0]: z}
        emit_affine(self.graph, [node], values, self.names, _itself, shifts=False, suffix="again")
        found = values[node]
        offset: dict[fx.Node, Any] = {}
        emit_affine(self.graph, [node], offset, self.names, _itself, shifts=True, suffix="shift")
        wanted = target
        if offset[node] is not None:
            wanted = self.graph.call_function(operator.sub, (target, offset[node]))
        residual = self.graph.create_node(
            "call_function", solve.relative_residual, (found, wanted), {},
            name=f"{node.name}_residual",
        )  # fmt: skip
        self._mark(node, found, wanted if wanted is not target else None, offset[node], residual)
        return residual

    # Least squares.

    def _closed_form(
        self, chain: list[fx.Node], target: fx.Node
    ) -> tuple[fx.Node, fx.Node, Step] | None:
        """A pointwise layer of constants, with constant scales: one matrix, made once."""
        inverse, first = self.options.inverse, chain[0]
        rule = _graph.rule_of(first)
        assert rule is not None
        plain = (inverse.weight, inverse.rows, inverse.prior) == ("none", "all", "zero")
        if not plain or rule.dense is None or not self._pointwise(first):
            return None
        scales = []
        for node in chain[1:]:
            captured = [self.names[n] for n in node.meta.get(keys.CAPTURES, {}).values()]
            if not captured or not all(map(_graph.is_constant, captured)):
                return None
            diagonal = _graph.rule_of(node).diagonal  # type: ignore[union-attr]
            assert diagonal is not None
            state = _graph.state(node, self.names)
            scales.append(_graph.call(self.graph, diagonal, (), state, f"{node.name}_diagonal"))
        return self._apply_closed_form(chain, target, scales)

    def _pointwise(self, node: fx.Node) -> bool:
        rule = _graph.rule_of(node)
        assert rule is not None and rule.dense is not None
        weight: Any = node.kwargs["weight"]
        channels = max(weight.meta[keys.SHAPE][:2])
        state = _graph.resolve(dict(node.kwargs), self.gm)
        wanted = {k: state[k] for k in parameters(rule.dense)}
        return channels <= MAX_CHANNELS and rule.dense(**wanted) is not None

    def _apply_closed_form(
        self, chain: list[fx.Node], target: fx.Node, scales: list[fx.Node]
    ) -> tuple[fx.Node, fx.Node, Step]:
        first, last = chain[0], chain[-1]
        rule = _graph.rule_of(first)
        assert rule is not None and rule.dense is not None
        state = _graph.state(first, self.names)
        weight: Any = first.kwargs["weight"]
        dense = _graph.call(self.graph, rule.dense, (), state, f"{first.name}_dense")
        matrix = self.graph.create_node(
            "call_function", solve.channel_inverse,
            (dense, scales, self.options.inverse.damping, weight.meta[keys.SHAPE]), {},
            name=f"{first.name}_inverse_weight",
        )  # fmt: skip
        offset: dict[fx.Node, Any] = {}
        emit_affine(self.graph, chain, offset, self.names, _itself, shifts=True, suffix="shift")
        wanted = target
        if offset[last] is not None:
            wanted = self.graph.call_function(operator.sub, (target, offset[last]))
        z = _graph.call(
            self.graph, rule.linear, (wanted,), state | {"weight": matrix}, f"{first.name}_inverse"
        )
        source = _graph.operands(first, invertible=True)[0]
        values: dict[fx.Node, Any] = {source: z}
        emit_affine(self.graph, chain, values, self.names, _itself, shifts=False, suffix="again")
        residual = self.graph.create_node(
            "call_function", solve.relative_residual, (values[last], wanted), {},
            name=f"{first.name}_residual",
        )  # fmt: skip
        self._mark(first, dense, matrix, z, residual, wanted if wanted is not target else None)
        names = tuple(node.name for node in chain)
        return z, residual, Step(CLOSED, rule.equation, names, z.name)

    def _least_squares(
        self, nodes: Sequence[fx.Node], entry: fx.Node, target: fx.Node, equation: str
    ) -> tuple[fx.Node, fx.Node, Step]:
        """One `LeastSquares` module for the affine map from `entry` to the last of `nodes`."""
        inverse, exit = self.options.inverse, nodes[-1]
        affine = AffineMap(nodes, entry, self.names)
        shape, out = entry.meta[keys.SHAPE], exit.meta[keys.SHAPE]
        p, q = math.prod(shape[1:]), math.prod(out[1:])
        module = solve.LeastSquares(
            affine.linear, affine.transpose, affine.offset, shape, inverse.damping, inverse.steps,
            p if inverse.rows == "leading" and p < q else None,
        )  # fmt: skip
        path = f"inverse.{nodes[0].name if len(nodes) == 1 else exit.name}"
        self.gm.add_submodule(path, module)
        weight = self._weight(exit)
        sigma = None
        if weight is None and inverse.damping and all(map(_graph.is_constant, affine.needs)):
            name = f"{exit.name}_sigma_max"
            sigma = self.graph.create_node(
                "call_module", f"{path}.sigma_max", tuple(affine.needs), {}, name=name
            )
        prior = entry if inverse.prior == "activation" else None
        solved = self.graph.create_node(
            "call_module", path, (target, sigma, weight, prior, *affine.needs), {},
            name=f"{exit.name}_solved",
        )  # fmt: skip
        z, residual = (
            self.graph.create_node(
                "call_function", operator.getitem, (solved, i), {}, name=f"{exit.name}_{part}"
            )
            for i, part in enumerate(("least_squares", "residual"))
        )
        self._mark(exit, weight, sigma, solved, z, residual)
        names = tuple(node.name for node in nodes)
        return z, residual, Step(LEAST_SQUARES, equation, names, z.name)

    def _weight(self, exit: fx.Node) -> fx.Node | None:
        importance = exit.meta.get(keys.IMPORTANCE)
        if self.options.inverse.weight == "none" or importance is None:
            return None
        args = (self.names[importance], self.options.inverse.clip)
        return self.graph.create_node(
            "call_function", solve.importance_weight, args, {}, name=f"{exit.name}_weight"
        )

    # Regions.

    def _region(self, region: Region) -> fx.Node:
        if region.entry == SOURCE:
            raise GraphError(
                f"{self.names[region.exit].meta[keys.SITE]} merges paths from several inputs; "
                "the cascade needs one input that all paths start from"
            )
        nodes = [self.names[name] for name in region.nodes]
        entry, exit = self.names[region.entry], nodes[-1]
        self.inside.append(f"{region.kind} {_site(entry)} -> {_site(exit)}")
        if self.options.residual == "capture" and region.series_parallel:
            estimate = self._capture_region(nodes, entry)
        else:
            estimate = self._joint_region(region, nodes, entry)
        self.inside.pop()
        return estimate

    def _joint_region(self, region: Region, nodes: list[fx.Node], entry: fx.Node) -> fx.Node:
        """Z at the fork by one least squares of the whole region, then back into the branches."""
        exit = nodes[-1]
        target = self.z[exit.name]
        z, residual, step = self._least_squares(nodes, entry, target, "Eq. 7, joint")
        self._set(entry, z, residual, step)
        values: dict[fx.Node, Any] = {entry: z}
        emit_affine(self.graph, nodes, values, self.names, _itself, shifts=True, suffix="affine")
        self._mark(exit, *(values[node] for node in nodes))
        if region.series_parallel:
            self._branches(exit, entry, [values[o] for o in _merged(exit)])
            return z
        for node in nodes[:-1]:
            step = Step(REPROPAGATED, "captured affine", (node.name,), values[node].name)
            self._set(node, values[node], residual, step)
        return z

    def _branches(
        self, exit: fx.Node, entry: fx.Node, values: list[fx.Node]
    ) -> list[tuple[int, fx.Node]]:
        """What remains of Z at the merge for each branch, and from there back to the fork.

        Returns, per branch, its number of operators and its estimate at the fork.
        """
        rule = _graph.rule_of(exit)
        assert rule is not None and rule.inverse is not None
        state = _graph.state(exit, self.names)
        found = []
        for operand, index in zip(_merged(exit), state["active"], strict=True):
            name = f"{exit.name}_remainder_{index}"
            leading = (self.z[exit.name], values, index)
            z = _graph.call(self.graph, rule.inverse, leading, state, name)
            self._mark(exit, z)
            if operand is entry:
                found.append((0, z))
                continue
            self._set(operand, z, None, Step(REMAINDER, rule.equation, (exit.name,), z.name))
            before = len(self.z)
            estimate = self._descend(entry.name, operand.name)
            assert estimate is not None
            found.append((len(self.z) - before + 1, estimate))
        return found

    def _capture_region(self, nodes: list[fx.Node], entry: fx.Node) -> fx.Node:
        """The other branches at their forward values; the fork from its shortest branches."""
        exit = nodes[-1]
        found = self._branches(exit, entry, _merged(exit))
        shortest = min(length for length, _ in found)
        estimates = [z for length, z in found if length == shortest]
        z = estimates[0]
        for other in estimates[1:]:
            z = self.graph.call_function(operator.add, (z, other))
        if len(estimates) > 1:
            z = self.graph.call_function(operator.truediv, (z, len(estimates)))
        self._mark(exit, z)
        self._set(entry, z, None, Step(REMAINDER, "captured branches", (exit.name,), z.name))
        return z

    # Bookkeeping.

    def _set(self, node: fx.Node, z: fx.Node, residual: fx.Node | None, step: Step) -> None:
        self.z[node.name] = z
        node.meta[keys.BPFM] = z.name
        node.meta[keys.RESIDUAL] = residual.name if residual is not None else ""
        region = self.inside[-1] if self.inside else ""
        node.meta[keys.STEP] = Step(step.kind, step.equation, step.operators, step.node, region)

    def _mark(self, source: fx.Node, *nodes: fx.Node | None) -> None:
        for node in nodes:
            if node is not None:
                node.meta.setdefault(keys.PART, "inverse")
                node.meta.setdefault(keys.SOURCE, source.name)


MAX_CHANNELS = 4096  # a closed form beyond this takes minutes to make


def _is_diagonal(node: fx.Node) -> bool:
    rule = _graph.rule_of(node)
    if rule is None or rule.diagonal is None:
        return False
    source: Any = node.kwargs[rule.operands[0]]
    same: bool = source.meta[keys.SHAPE] == node.meta[keys.SHAPE]
    return same


def _is_captured(node: fx.Node) -> bool:
    """Whether the diagonal is a tensor: dividing by a number is exact."""
    return all(isinstance(node.kwargs[k], fx.Node) for k in ("gate",) if k in node.kwargs)


def _readers(node: fx.Node) -> list[fx.Node]:
    """Who reads a node in the forward pass."""
    return [user for user in node.users if keys.RULE in user.meta or user.op == "output"]


def _merged(exit: fx.Node) -> list[fx.Node]:
    return _graph.operands(exit, invertible=True)


def _itself(node: fx.Node) -> fx.Node:
    return node


def _site(node: fx.Node) -> str:
    return str(node.meta.get(keys.SITE, node.name))
