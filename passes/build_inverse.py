"""build_inverse: the cascade, from the feature node back to the input, as graph nodes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from torch import fx

from naflow_fx import keys
from naflow_fx.errors import GraphError
from naflow_fx.options import Options
from naflow_fx.passes import _graph, _module
from naflow_fx.passes._inverse_steps import (
    CONTROL,
    REMAINDER,
    START,
    Step,
    StepWriter,
    is_number,
)
from naflow_fx.passes.find_flow import find_flow
from naflow_fx.passes.find_regions import Region, find_regions
from naflow_fx.passes.join_features import cascade_ends


def build_inverse(gm: fx.GraphModule, options: Options) -> fx.GraphModule:
    """Adds one inverse step per operator and region (docs/method.md 2 to 4).

    Before: a canonical graph with captures (constants folded) and importance.  After: at every
    node of the cascade `keys.STEP` names the node that holds Z and says how it was made; nodes of
    control branches have Z = activation.  Left alone: a graph whose method looks at no Z.

    Raises:
        GraphError: the cascade can't be built for this graph.
    """
    if not options.inverts:
        return gm
    new = _module.copy(gm)
    cascade = _Cascade(new, options)
    with new.graph.inserting_before(new.graph.output_node()):
        cascade.run()
    return new


def check_inverse(gm: fx.GraphModule, options: Options) -> None:
    """Every call site has Z, where the method needs it."""
    if not options.inverts:
        return
    names = _graph.names(gm.graph)
    for node in find_flow(gm.graph).sites:
        if keys.STEP not in node.meta or node.meta[keys.STEP].node not in names:
            raise GraphError(f"{node.meta[keys.SITE]}: no inverse step reaches it")


class _Cascade:
    def __init__(self, gm: fx.GraphModule, options: Options) -> None:
        self.graph = gm.graph
        self.flow = find_flow(gm.graph)
        self.ends = cascade_ends(gm)
        self.regions = find_regions(gm.graph, {*self.flow.cascade, *self.ends})
        self.write = StepWriter(gm, options)
        self.inside = [""]  # the regions around what is written

    def run(self) -> None:
        for node in (*self.flow.features, *self.ends):
            self._set(node, self._activation(node, START))
        for node in self.ends:
            self._descend(node)
        for node in self.flow.sites:
            if node not in self.flow.cascade:
                self._set(node, self._activation(node, CONTROL))

    def _descend(self, at: fx.Node | None) -> None:
        """From Z at a node back along the dominators to where its paths begin."""
        while at is not None and _graph.sources(at):
            region = self.regions.get(at)
            at = self._region(region) if region else self._operator(at)

    def _operator(self, node: fx.Node) -> fx.Node:
        """One operator, or a layer with the diagonal operators after it, inverted as one."""
        chain = _chain(node)
        for before, after in reversed([*pairwise(chain)]):  # own maps: Eqs. 11 and 13
            self._set(before, self.write.exact(after, self._z(after)))  # never a target
        source = _graph.sources(chain[0])[0]
        self._set(source, self._invert(chain, source))
        return source

    def _invert(self, chain: list[fx.Node], source: fx.Node) -> Step:
        rule, z_out = _graph.rule(chain[0]), self._z(chain[-1])
        if rule.inverse is None:
            return self.write.least_squares(chain, source, z_out, rule.equation)
        if _is_diagonal(chain[0]) and not is_number(chain[0]):
            return self.write.damped_diagonal(chain[0], z_out)
        return self.write.exact(chain[0], z_out)

    def _region(self, region: Region) -> fx.Node | None:
        """Z at the fork of a region, and at every node inside."""
        entry, exit = region.entry, region.nodes[-1]
        if entry is None:
            self._inputs(region, exit)
            return None
        self.inside.append(f"{region.kind} {_site(entry)} -> {_site(exit)}")
        step, values = self.write.region(region.nodes, entry, self._z(exit))
        self._set(entry, step)
        for node in reversed(region.nodes[:-1]):
            reader = _diagonal_of_chain(node)
            if node in self.flow.features:
                self._set(node, self._activation(node, START))
            elif reader is not None:  # its own map: Eqs. 11 and 13, as outside of regions
                self._set(node, self.write.exact(reader, self._z(reader)))
            else:
                self._set(node, self.write.propagated(node, values[node], step))
        self.inside.pop()
        return entry

    def _inputs(self, region: Region, exit: fx.Node) -> None:
        """A merge of paths from several inputs: no fork to solve, the others at forward values."""
        if not region.series_parallel:
            raise GraphError(
                f"{_site(exit)} merges paths from several inputs that also meet elsewhere; the "
                "cascade needs one fork that they share"
            )
        rule, sources, active = (
            _graph.rule(exit),
            _graph.sources(exit),
            self.write.offer(exit)["active"],
        )
        self.inside.append(f"{region.kind} of inputs -> {_site(exit)}")
        for k, (source, index) in enumerate(zip(sources, active, strict=True)):
            others = [*sources[:k], None, *sources[k + 1 :]]
            leading, word = (self._z(exit), index), f"remainder_{index}"
            z = self.write.ask(exit, rule.inverse, leading, word, values=others)
            self._set(source, self.write.step(REMAINDER, rule.equation, z, [exit]))
            self._descend(source)
        self.inside.pop()

    def _set(self, node: fx.Node, step: Step) -> None:
        node.meta[keys.STEP] = replace(step, region=self.inside[-1])

    def _z(self, node: fx.Node) -> fx.Node:
        return self.write.names[node.meta[keys.STEP].node]

    def _activation(self, node: fx.Node, kind: str) -> Step:
        """Z where it is the activation itself."""
        return self.write.step(kind, "forward activation", node)


def _chain(node: fx.Node) -> list[fx.Node]:
    """A least-squares operator and the diagonal ones up to `node`; or `node` alone.

    Each is the only reader of the one before.
    """
    chain = [node]
    while _is_diagonal(chain[0]):
        source = _graph.sources(chain[0])[0]
        if _graph.rule_of(source) is None or len(_readers(source)) > 1:
            return [node]
        chain.insert(0, source)
    return [node] if _graph.rule(chain[0]).inverse else chain


def _diagonal_of_chain(node: fx.Node) -> fx.Node | None:
    """The diagonal operator behind `node` that belongs to the same chain."""
    behind = (user for user in node.users if node in _graph.sources(user))
    return next((user for user in behind if node in _chain(user)[:-1]), None)


def _is_diagonal(node: fx.Node) -> bool:
    shapes = [source.meta[keys.SHAPE] for source in _graph.sources(node)[:1]]
    return _graph.rule(node).diagonal is not None and shapes == [node.meta[keys.SHAPE]]


def _readers(node: fx.Node) -> list[fx.Node]:
    """Who reads a node in the forward pass."""
    return [user for user in node.users if keys.RULE in user.meta or user.op == "output"]


def _site(node: fx.Node) -> str:
    return str(node.meta.get(keys.SITE, node.name))
