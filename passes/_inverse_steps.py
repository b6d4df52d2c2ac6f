"""One inverse step: the nodes that bring Z from an operator's output to its input.

Three ways: the rule's own inverse, a damped diagonal, and damped least squares; each returns what
`build_inverse` notes on the call site.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from naflow_fx import keys
from naflow_fx.maps import formulas
from naflow_fx.options import Options
from naflow_fx.passes import _graph
from naflow_fx.passes._affine import AffineMap, AffineWriter
from naflow_fx.passes._batch import merges_batch
from naflow_fx.passes._kernels import Kernels, groups_of, has_constant_kernel
from naflow_fx.passes._write import Writer
from naflow_fx.rules.contract import parameters
from naflow_fx.solver import least_squares

START, CONTROL = "start", "control"
EXACT, DAMPED, LEAST_SQUARES = "exact", "damped diagonal", "least squares"
PROPAGATED, REMAINDER = "propagated", "remainder"

LOSSLESS = 1e-5  # relative; a float32 rounding error is a hundredth of it


@dataclass(frozen=True)
class Step:
    """How Z of a node was made: shown by `inspect`.

    Attributes:
        kind: one of the words above.
        equation: of the paper, or what stands for it.
        node: the node that holds Z.
        operators: the forward nodes that were inverted as one.
        residual: the node that holds the residual of the step, [N]; "": it is 0.
        sigma: the node that holds sigma_max of what was inverted, [N]; a number where that is
            constant; None where damping has no say.
        region: "kind entry -> exit" of the region that was solved as one, or "".
    """

    kind: str
    equation: str
    node: str
    operators: tuple[str, ...] = ()
    residual: str = ""
    sigma: str | float | None = None
    region: str = ""


class StepWriter(Writer):
    """Writes inverse steps into a graph at its insertion point."""

    def __init__(self, gm: fx.GraphModule, options: Options) -> None:
        super().__init__(gm.graph, "inverse")
        self.gm, self.inverse = gm, options.inverse
        self.kernels = Kernels(gm, self, self.inverse.precision == "bfloat16")

    def exact(self, node: fx.Node, z_out: fx.Node) -> Step:
        """The rule's own inverse."""
        rule = _graph.rule(node)
        assert rule.inverse is not None
        leading: tuple[Any, ...] = (z_out,)
        if rule.variadic:  # one activation and constants, as in x - 0.5
            leading = (z_out, self.offer(node)["active"][0])
        more: dict[str, Any] = {"damping": self.inverse.damping, "values": [None]}
        z = self.ask(node, rule.inverse, leading, "inverse", **more)
        if self._is_lossless(node):
            return self.step(EXACT, rule.equation, z, [node])
        damped = "damping" in parameters(rule.inverse) and rule.diagonal is not None
        sigma = None if is_number(node) or not damped else self._sigma(node, self._diagonal(node))
        residual = self._residual(node, z, z_out)
        return self.step(EXACT, rule.equation, z, [node], residual, sigma)

    def damped_diagonal(self, node: fx.Node, z_out: fx.Node) -> Step:
        """d (z - c) / (d^2 + damping max d^2), of a diagonal operator that stands alone."""
        diagonal = self._diagonal(node)
        rows = self.known(node, keys.USED) if self.inverse.rows == "used" else None
        shift = self._shift(node)
        off = self._off(node) if shift is not None else None
        if off is not None:
            rows = self.call(node, least_squares.equations, (rows, off, shift), "rows")
        if rows is not None:
            diagonal = self.call(node, formulas.of_used, (diagonal, rows), "of_rows")
        sigma = self._sigma(node, diagonal)
        arguments = (z_out, diagonal, shift, sigma, self.inverse.damping)
        z = self.call(node, least_squares.damped_diagonal, arguments, "inverse")
        equation, residual = f"damped {_graph.rule(node).equation}", self._residual(node, z, z_out)
        return self.step(DAMPED, equation, z, [node], residual, sigma)

    def least_squares(
        self, nodes: Sequence[fx.Node], entry: fx.Node, z_out: fx.Node, equation: str
    ) -> Step:
        """One `LeastSquares` for the affine map from `entry` to the last of `nodes`."""
        return self._solved(nodes, entry, z_out, equation, measures=True)[0]

    def region(
        self, nodes: Sequence[fx.Node], entry: fx.Node, z_out: fx.Node
    ) -> tuple[Step, dict[fx.Node, Any]]:
        """Z at a fork by one least squares of the whole region, and what it is worth inside."""
        exit = nodes[-1]
        step, length, rows = self._solved(nodes, entry, z_out, "Eq. 7, joint", measures=False)
        z = self.names[step.node]
        values: dict[fx.Node, Any] = {entry: z}
        offers = {node: self.offer(node) for node in nodes}
        AffineWriter(self.graph, offers, "affine").forward(nodes, values, like=z)
        for value in values.values():
            value.meta = _graph.marks("inverse", exit) | value.meta
        arguments = (values[exit], z_out, rows, length)
        residual = self.call(exit, least_squares.residual_of_rows, arguments, "residual")
        return replace(step, residual=residual.name), values

    def _solved(
        self,
        nodes: Sequence[fx.Node],
        entry: fx.Node,
        z_out: fx.Node,
        equation: str,
        measures: bool,
    ) -> tuple[Step, fx.Node, fx.Node]:
        """What a `LeastSquares` makes, ||R (z - c)|| [N], and R."""
        exit, affine = nodes[-1], AffineMap(nodes, entry, self.kernels)
        module = least_squares.LeastSquares(
            affine.linear, affine.transpose, affine.shift, entry.meta[keys.SHAPE],
            self.inverse.damping, self.inverse.count, _groups(nodes), affine.kernels,
            self._whole(nodes), measures,
        )  # fmt: skip
        path = f"inverse.{exit.name}"
        self.gm.add_submodule(path, module)
        rows = self._rows(entry, exit, z_out)
        off = self._off(exit) if affine.shift is not None else None  # else v = 0 keeps all bounds
        solved = self.call(exit, path, (z_out, rows, off, *affine.needs), "solved")
        z, length, residual, sigma, equations = (
            self.call(exit, operator.getitem, (solved, i), part)
            for i, part in enumerate(("least_squares", "length", "residual", "sigma_max", "rows"))
        )
        damped = sigma if self.inverse.damping else None
        step = self.step(LEAST_SQUARES, equation, z, nodes, residual, damped)
        return step, length, equations

    def propagated(self, node: fx.Node, value: fx.Node, solved: Step) -> Step:
        """A node inside a region: what the fork's Z is worth there, of the neurons that are used.

        It carries the residual of the step that solved the region.
        """
        used, z = self.known(node, keys.USED), value
        if used is not None:
            z = self.call(node, formulas.of_used, (value, used), "propagated")
        step = self.step(PROPAGATED, "captured affine", z, [node])
        return replace(step, residual=solved.residual)

    def step(
        self,
        kind: str,
        equation: str,
        z: fx.Node,
        operators: Sequence[fx.Node] = (),
        residual: fx.Node | None = None,
        sigma: fx.Node | None = None,
    ) -> Step:
        """The `Step` that made `z`, which is found by its name from now on."""
        self.names[z.name] = z
        names = tuple(node.name for node in operators)
        known = "" if residual is None else residual.name
        return Step(kind, equation, z.name, names, known, None if sigma is None else sigma.name)

    def _rows(self, entry: fx.Node, exit: fx.Node, z_out: fx.Node) -> fx.Node | None:
        """Which outputs have an equation; None: all."""
        p, q = (math.prod(node.meta[keys.SHAPE][1:]) for node in (entry, exit))
        if self.inverse.rows == "leading" and p < q:
            return self.call(exit, least_squares.leading_rows, (z_out, p), "rows")
        return self.known(exit, keys.USED) if self.inverse.rows == "used" else None

    def _off(self, node: fx.Node) -> fx.Node | None:
        """Which neurons have a bound, told by who reads them; None: none, or all are used."""
        bounded = self.inverse.rows == "used" and keys.USED in node.meta
        return self._cut(node, node) if bounded else None

    def _cut(self, node: fx.Node, source: fx.Node) -> fx.Node | None:
        """Where readers of `node`, also through views, tell that it was at most 0; None: nowhere.

        The new nodes serve `source`.
        """
        found: fx.Node | None = None
        for reader in list(node.users):  # which grows
            off, rule = None, _graph.rule_of(reader)
            if rule is not None and rule.off is not None:
                asked = _graph.asked(rule.off, self.offer(reader))
                off = self.call(source, rule.off, (), "off", asked, of=reader)
            elif rule is not None and rule.view:
                off = self._before(reader, source)
            if off is not None and found is not None:
                off = self.call(source, operator.or_, (found, off), "off", of=reader)
            found = found if off is None else off
        return found

    def _before(self, view: fx.Node, source: fx.Node) -> fx.Node | None:
        """The same of a view's readers, at the numbers that it shows."""
        off = self._cut(view, source)
        if off is None:
            return None
        function, dtype = _graph.rule(view).transpose, view.meta[keys.DTYPE]
        number = self.call(source, least_squares.number, (off, dtype), "off_number", of=view)
        asked = _graph.asked(function, self.offer(view), 1)
        back = self.call(source, function, (number,), "off_back", asked, of=view)
        return self.call(source, operator.gt, (back, 0), "off", of=view)

    def _residual(self, node: fx.Node, z: fx.Node, z_out: fx.Node) -> fx.Node:
        """||A z_x - (z_y - c)|| / ||z_y - c||."""
        rule = _graph.rule(node)
        again = self.ask(node, rule.linear, ([z] if rule.variadic else z,), "again")
        wanted, shift = z_out, self._shift(node)
        if shift is not None:
            wanted = self.call(node, operator.sub, (z_out, shift), "wanted")
        arguments = (again, wanted, self.norm(node, wanted))
        return self.call(node, least_squares.relative_residual, arguments, "residual")

    def norm(self, source: fx.Node, z: fx.Node) -> fx.Node:
        """||z|| per sample, [N], in the solver's dtype: one node, whoever asks first."""
        if keys.NORM not in z.meta:
            made = self.call(source, least_squares.solver_norm, (z,), "norm", of=z)
            z.meta[keys.NORM] = made.name
            self.names[made.name] = made
        return self.names[z.meta[keys.NORM]]

    def _is_lossless(self, node: fx.Node) -> bool:
        """Whether A A^-1 z = z whatever z is: told from constants, by one random z."""
        rule = _graph.rule(node)
        assert rule.inverse is not None
        if rule.variadic or merges_batch(node):
            return False
        offered = self.offer(node) | {"damping": self.inverse.damping}
        asked = [_graph.asked(function, offered, 1) for function in (rule.inverse, rule.linear)]
        known = _graph.resolve(asked, self.gm)
        if known is None:
            return False
        single = partial(least_squares.widen, dtype=torch.float32)
        inverse, linear = pytree.tree_map_only(torch.Tensor, single, known)
        tensors = [x for x in pytree.tree_leaves((inverse, linear)) if isinstance(x, torch.Tensor)]
        generator = torch.Generator().manual_seed(0)
        shape = [1 if size == -1 else size for size in node.meta[keys.SHAPE]]
        z = torch.randn(shape, generator=generator).to(tensors[0].device if tensors else "cpu")
        v = rule.inverse(z, **inverse) - rule.inverse(torch.zeros_like(z), **inverse)
        lost = rule.linear(v, **linear) - z
        return bool(lost.norm() <= LOSSLESS * z.norm())

    def _shift(self, node: fx.Node) -> fx.Node | None:
        """c; None where it is 0."""
        shift = _graph.rule(node).shift
        return self.ask(node, shift, (), "shift") if _graph.has_shift(node) else None

    def _diagonal(self, node: fx.Node) -> fx.Node:
        return self.ask(node, _graph.rule(node).diagonal, (), "diagonal")

    def _sigma(self, node: fx.Node, diagonal: fx.Node) -> fx.Node | None:
        """sigma_max of a diagonal operator; None at damping 0."""
        if not self.inverse.damping:
            return None
        shapes = (_graph.sources(node)[0].meta[keys.SHAPE], node.meta[keys.SHAPE])
        return self.call(node, least_squares.diagonal_sigma_max, (diagonal, *shapes), "sigma_max")

    def _whole(self, nodes: Sequence[fx.Node]) -> bool:
        """Whether all layers multiply in bfloat16, so that nothing is gained by going back."""
        layers = list(filter(has_constant_kernel, nodes))
        return bool(layers) and all(map(self.kernels.is_low, layers))


def _groups(nodes: Sequence[fx.Node]) -> int:
    """Groups of channels that a layer and the diagonal operators after it don't mix."""
    alone = all(_graph.rule(node).diagonal for node in nodes[1:])
    return groups_of(nodes[0]) if alone else 1


def is_number(node: fx.Node) -> bool:
    """Whether a diagonal is one number, by which dividing is exact."""
    gates = [node.kwargs.get(name) for name in _graph.rule(node).control]
    return bool(gates) and not any(isinstance(gate, fx.Node) for gate in gates)
