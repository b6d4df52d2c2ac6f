"""build_inverse: the cascade, from the feature node back to the input, as graph nodes."""

from __future__ import annotations

import operator
from dataclasses import replace
from typing import Any

from torch import fx

from naflow_fx import keys
from naflow_fx.errors import GraphError
from naflow_fx.options import Options
from naflow_fx.passes import _graph
from naflow_fx.passes._affine import emit_affine
from naflow_fx.passes._inverse_steps import (
    CONTROL,
    REMAINDER,
    REPROPAGATED,
    START,
    Made,
    Step,
    StepWriter,
    is_number,
    mark,
)
from naflow_fx.passes.find_flow import find_flow
from naflow_fx.passes.find_regions import SOURCE, Region, find_regions
from naflow_fx.passes.join_features import cascade_ends


def build_inverse(gm: fx.GraphModule, options: Options) -> fx.GraphModule:
    """Adds one inverse step per operator and region (METHOD sections 2 to 4).

    Before: a canonical graph with captures (constants folded) and importance.  After: at every
    node of the cascade `keys.BPFM` names the node that holds Z, `keys.RESIDUAL` the residual of
    the step that made it, `keys.SIGMA` its sigma_max, `keys.STEP` says how; nodes of control
    branches have Z = activation.

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
        self.graph = gm.graph
        self.joint = options.residual == "joint"
        self.names = _graph.names(gm.graph)
        self.flow = find_flow(gm.graph)
        self.ends = cascade_ends(gm)
        self.regions = find_regions(gm.graph, self.flow.cascade | set(self.ends))
        self.write = StepWriter(gm, options, self.names)
        self.z: dict[str, fx.Node] = {}
        self.inside: list[str] = []

    def run(self) -> None:
        for name in self.ends:
            end = self.names[name]
            self._set(end, Made(end, None, Step(START, "forward activation", (), name)))
            self._descend(SOURCE, name)
        for name in self.flow.sites:
            if self.flow.is_control(name):
                node = self.names[name]
                self._set(node, Made(node, None, Step(CONTROL, "forward activation", (), name)))

    def _descend(self, entry: str, exit: str) -> fx.Node:
        """From Z at `exit` back along the dominators to `entry`; the last step's Z there."""
        at, estimate = exit, self.z[exit]
        while at != entry and _sources(self.names[at]):
            if at in self.regions.by_exit:
                region = self.regions.by_exit[at]
                estimate, at = self._region(region), region.entry
            else:
                estimate, at = self._operator(self.names[at], entry)
        return estimate

    def _operator(self, node: fx.Node, entry: str) -> tuple[fx.Node, str]:
        """One operator, or a layer with the diagonal operators after it, inverted as one."""
        chain = _chain(node)
        for i in range(len(chain) - 1, 0, -1):  # own maps: Eqs. 11 and 13, never a target
            self._set(chain[i - 1], self.write.exact(chain[i], self.z[chain[i].name]))
        source = _sources(chain[0])[0]
        made = self._invert(chain, source)
        if source.name != entry or not self.joint:
            self._set(source, made)
        return made.z, source.name

    def _invert(self, chain: list[fx.Node], source: fx.Node) -> Made:
        rule = _graph.rule_of(chain[0])
        assert rule is not None
        target = self.z[chain[-1].name]
        if rule.inverse is None:
            closed = self.write.closed_form(chain, target)
            return closed or self.write.least_squares(chain, source, target, rule.equation)
        if _is_diagonal(chain[0]) and not is_number(chain[0]):
            return self.write.damped_diagonal(chain[0], target)
        return self.write.exact(chain[0], target)

    def _region(self, region: Region) -> fx.Node:
        """Z at the fork of a region, and at every node inside."""
        nodes = [self.names[name] for name in region.nodes]
        if region.entry == SOURCE:
            return self._inputs(region, nodes[-1])
        entry = self.names[region.entry]
        self.inside.append(f"{region.kind} {_site(entry)} -> {_site(nodes[-1])}")
        if self.joint or not region.series_parallel:
            z = self._joint(region, nodes, entry)
        else:
            z = self._captured(nodes, entry)
        self.inside.pop()
        return z

    def _inputs(self, region: Region, exit: fx.Node) -> fx.Node:
        """A merge of paths from several inputs: no fork to solve, the others at forward values."""
        if not region.series_parallel:
            raise GraphError(
                f"{_site(exit)} merges paths from several inputs that also meet elsewhere; the "
                "cascade needs one fork that they share"
            )
        self.inside.append(f"{region.kind} of inputs -> {_site(exit)}")
        self._branches(exit, None, _sources(exit))
        self.inside.pop()
        return self.z[exit.name]

    def _joint(self, region: Region, nodes: list[fx.Node], entry: fx.Node) -> fx.Node:
        """One least squares of the whole region, then back into its branches (section 4)."""
        exit = nodes[-1]
        made = self.write.least_squares(nodes, entry, self.z[exit.name], "Eq. 7, joint")
        self._set(entry, made)
        values: dict[fx.Node, Any] = {entry: made.z}
        emit_affine(
            self.graph, nodes[:-1], values, self.write.state, _itself, shifts=True, suffix="affine"
        )
        mark(exit, *values.values())
        if region.series_parallel:
            self._branches(exit, entry, [values[source] for source in _sources(exit)])
            return made.z
        for node in nodes[:-1]:
            step = Step(REPROPAGATED, "captured affine", (node.name,), values[node].name)
            self._set(node, Made(values[node], made.residual, step))
        return made.z

    def _captured(self, nodes: list[fx.Node], entry: fx.Node) -> fx.Node:
        """The other branches at their forward values; the fork from its shortest branches."""
        exit = nodes[-1]
        found = self._branches(exit, entry, _sources(exit))
        shortest = min(length for length, _ in found)
        estimates = [z for length, z in found if length == shortest]
        z = estimates[0]
        for other in estimates[1:]:
            z = self.graph.call_function(operator.add, (z, other))
        if len(estimates) > 1:
            z = self.graph.call_function(operator.truediv, (z, len(estimates)))
        mark(exit, z)
        self._set(entry, Made(z, None, Step(REMAINDER, "captured branches", (exit.name,), z.name)))
        return z

    def _branches(
        self, exit: fx.Node, entry: fx.Node | None, values: list[fx.Node]
    ) -> list[tuple[int, fx.Node]]:
        """What remains of Z at the merge for each branch, and from there back to the fork.

        `values`: what the branches are worth.  Returns, per branch, its number of operators and
        its estimate at the fork.
        """
        rule = _graph.rule_of(exit)
        assert rule is not None and rule.inverse is not None
        state = _graph.state(exit, self.names)
        found = []
        for k, (source, index) in enumerate(zip(_sources(exit), state["active"], strict=True)):
            others = [*values[:k], None, *values[k + 1 :]]
            leading, name = (self.z[exit.name], index), f"{exit.name}_remainder_{index}"
            z = _graph.call(self.graph, rule.inverse, leading, state | {"values": others}, name)
            mark(exit, z)
            if source is entry:
                found.append((0, z))
                continue
            self._set(source, Made(z, None, Step(REMAINDER, rule.equation, (exit.name,), z.name)))
            before = len(self.z)
            estimate = self._descend(entry.name if entry else SOURCE, source.name)
            found.append((len(self.z) - before + 1, estimate))
        return found

    def _set(self, node: fx.Node, made: Made) -> None:
        self.z[node.name] = made.z
        node.meta[keys.BPFM] = made.z.name
        node.meta[keys.RESIDUAL] = made.residual.name if made.residual is not None else ""
        node.meta[keys.SIGMA] = made.sigma.name if made.sigma is not None else None
        node.meta[keys.STEP] = replace(made.step, region=self.inside[-1] if self.inside else "")


def _chain(node: fx.Node) -> list[fx.Node]:
    """A least-squares operator and the diagonal ones up to `node`; or `node` alone.

    Each is the only reader of the one before.
    """
    chain = [node]
    while _is_diagonal(chain[0]):
        source = _sources(chain[0])[0]
        if _graph.rule_of(source) is None or len(_readers(source)) > 1:
            return [node]
        chain.insert(0, source)
    rule = _graph.rule_of(chain[0])
    return chain if rule is not None and rule.inverse is None else [node]


def _is_diagonal(node: fx.Node) -> bool:
    rule = _graph.rule_of(node)
    if rule is None or rule.diagonal is None:
        return False
    same: bool = _sources(node)[0].meta[keys.SHAPE] == node.meta[keys.SHAPE]
    return same


def _readers(node: fx.Node) -> list[fx.Node]:
    """Who reads a node in the forward pass."""
    return [user for user in node.users if keys.RULE in user.meta or user.op == "output"]


def _sources(node: fx.Node) -> list[fx.Node]:
    return _graph.operands(node, invertible=True)


def _itself(node: fx.Node) -> fx.Node:
    return node


def _site(node: fx.Node) -> str:
    return str(node.meta.get(keys.SITE, node.name))
