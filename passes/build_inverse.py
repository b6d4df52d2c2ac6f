"""build_inverse: the cascade, from the feature node back to the input, as graph nodes."""

from __future__ import annotations

from dataclasses import replace

from torch import fx

from naflow_fx import keys
from naflow_fx.errors import GraphError
from naflow_fx.options import Options
from naflow_fx.passes import _graph, _module
from naflow_fx.passes._inverse_steps import (
    CONTROL,
    REMAINDER,
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
    """Adds one inverse step per operator and region (docs/method.md 2 to 4).

    Before: a canonical graph with captures (constants folded) and importance.  After: at every
    node of the cascade `keys.BPFM` names the node that holds Z, `keys.RESIDUAL` the residual of
    the step that made it, `keys.SIGMA` its sigma_max, `keys.STEP` says how; nodes of control
    branches have Z = activation.  Left alone: a graph whose method looks at no Z.

    Raises:
        GraphError: the cascade can't be built for this graph.
    """
    if not options.inverts:
        return gm
    new = _module.copy(gm)
    cascade = _Cascade(new, options)
    with new.graph.inserting_before(_graph.output_node(new.graph)):
        cascade.run()
    return new


def check_inverse(gm: fx.GraphModule, options: Options) -> None:
    """Every call site has Z, where the method needs it."""
    if not options.inverts:
        return
    names = _graph.names(gm.graph)
    for name in find_flow(gm.graph).sites:
        if names[name].meta.get(keys.BPFM) not in names:
            raise GraphError(f"{names[name].meta[keys.SITE]}: no inverse step reaches it")


class _Cascade:
    def __init__(self, gm: fx.GraphModule, options: Options) -> None:
        self.graph = gm.graph
        self.names = _graph.names(gm.graph)
        self.flow = find_flow(gm.graph)
        self.ends = cascade_ends(gm)
        self.regions = find_regions(gm.graph, self.flow.cascade | set(self.ends))
        self.write = StepWriter(gm, options, self.names)
        self.z: dict[str, fx.Node] = {}
        self.inside: list[str] = []

    def run(self) -> None:
        for name in (*self.flow.features, *self.ends):
            self._set(self.names[name], self._start(name))
        for name in self.ends:
            self._descend(name)
        for name in self.flow.sites:
            if self.flow.is_control(name):
                node = self.names[name]
                self._set(node, Made(node, None, Step(CONTROL, "forward activation", (), name)))

    def _start(self, name: str) -> Made:
        return Made(self.names[name], None, Step(START, "forward activation", (), name))

    def _descend(self, exit: str) -> None:
        """From Z at `exit` back along the dominators to where its paths begin."""
        at = exit
        while at != SOURCE and _sources(self.names[at]):
            region = self.regions.get(at)
            at = self._region(region) if region else self._operator(self.names[at])

    def _operator(self, node: fx.Node) -> str:
        """One operator, or a layer with the diagonal operators after it, inverted as one."""
        chain = _chain(node)
        for i in range(len(chain) - 1, 0, -1):  # own maps: Eqs. 11 and 13, never a target
            self._set(chain[i - 1], self.write.exact(chain[i], self.z[chain[i].name]))
        source = _sources(chain[0])[0]
        self._set(source, self._invert(chain, source))
        return source.name

    def _invert(self, chain: list[fx.Node], source: fx.Node) -> Made:
        rule = _graph.rule_of(chain[0])
        assert rule is not None
        target = self.z[chain[-1].name]
        if rule.inverse is None:
            return self.write.least_squares(chain, source, target, rule.equation)
        if _is_diagonal(chain[0]) and not is_number(chain[0]):
            return self.write.damped_diagonal(chain[0], target)
        return self.write.exact(chain[0], target)

    def _region(self, region: Region) -> str:
        """Z at the fork of a region, and at every node inside."""
        nodes = [self.names[name] for name in region.nodes]
        if region.entry == SOURCE:
            self._inputs(region, nodes[-1])
            return SOURCE
        entry, exit = self.names[region.entry], nodes[-1]
        self.inside.append(f"{region.kind} {_site(entry)} -> {_site(exit)}")
        made, values = self.write.region(nodes, entry, self.z[exit.name])
        self._set(entry, made)
        for node in reversed(nodes[:-1]):
            reader = _diagonal_of_chain(node)
            if node.name in self.flow.features:
                self._set(node, self._start(node.name))
            elif reader is not None:  # its own map: Eqs. 11 and 13, as outside of regions
                self._set(node, self.write.exact(reader, self.z[reader.name]))
            else:
                self._set(node, self.write.propagated(node, values[node], made))
        self.inside.pop()
        return region.entry

    def _inputs(self, region: Region, exit: fx.Node) -> None:
        """A merge of paths from several inputs: no fork to solve, the others at forward values."""
        if not region.series_parallel:
            raise GraphError(
                f"{_site(exit)} merges paths from several inputs that also meet elsewhere; the "
                "cascade needs one fork that they share"
            )
        rule, sources = _graph.rule_of(exit), _sources(exit)
        assert rule is not None and rule.inverse is not None
        state = _graph.state(exit, self.names)
        self.inside.append(f"{region.kind} of inputs -> {_site(exit)}")
        for k, (source, index) in enumerate(zip(sources, state["active"], strict=True)):
            others = [*sources[:k], None, *sources[k + 1 :]]
            leading, name = (self.z[exit.name], index), f"{exit.name}_remainder_{index}"
            z = _graph.call(self.graph, rule.inverse, leading, state | {"values": others}, name)
            mark(exit, z)
            self._set(source, Made(z, None, Step(REMAINDER, rule.equation, (exit.name,), z.name)))
            self._descend(source.name)
        self.inside.pop()

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


def _diagonal_of_chain(node: fx.Node) -> fx.Node | None:
    """The diagonal operator behind `node` that belongs to the same chain."""
    readers = _readers(node)
    if len(readers) != 1 or _graph.rule_of(node) is None or not _is_diagonal(readers[0]):
        return None
    return readers[0] if node in _chain(readers[0])[:-1] else None


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
