"""build_maps: Eq. 2 at every wanted call site, and the program's result."""

from __future__ import annotations

from typing import Any, get_args

from torch import fx

from naflow_fx import keys
from naflow_fx.errors import GraphError
from naflow_fx.maps import formulas, use
from naflow_fx.maps.focus import focus_map, focused
from naflow_fx.options import Keep, Options
from naflow_fx.passes import _graph, _module
from naflow_fx.passes._inverse_steps import Step
from naflow_fx.passes._write import Writer
from naflow_fx.passes.find_flow import find_flow, score_of, sites_of, target_of
from naflow_fx.selection import choose
from naflow_fx.solver import least_squares


def build_maps(gm: fx.GraphModule, options: Options, images_per_sample: int) -> fx.GraphModule:
    """The output becomes a dictionary with the maps of every wanted call site.

    Before: a graph with importance, and Z where the method needs it.  After: ``{"output",
    "score", "target", "maps": {site: [N, ...]}, "residual", "norm_ratio", "sigma_max": {site: [N]},
    "bpfm", "importance", "used", "neuron_times"}``; what nobody asked for is dead code.  Maps are
    NaN where nothing is known of an image; `images_per_sample` images make one sample of the score.

    Raises:
        GraphError: a wanted layer does not exist.
    """
    new = _module.copy(gm)
    sites, end = sites_of(new.graph), new.graph.output_node()
    result: Any = end.args[0]
    parts = ("maps", "residual", "norm_ratio", "sigma_max", *get_args(Keep))
    found: dict[str, dict[str, fx.Node]] = {part: {} for part in parts}
    with new.graph.inserting_before(end):
        maps = _Maps(new.graph, options, images_per_sample)
        for site in choose(list(sites), options.layers, GraphError):
            for part, node in maps.site(sites[site]).items():
                found[part][site] = node
    end.args = ({**result, "target": target_of(new.graph), **found},)
    return new


class _Maps(Writer):
    def __init__(self, graph: fx.Graph, options: Options, images_per_sample: int) -> None:
        super().__init__(graph, "map")
        self.options = options
        reduce = formulas.REDUCTIONS[options.reduction]
        self.reduce = formulas.METHODS.get(options.method, reduce)
        features = find_flow(graph).features if options.method == "focused" else ()
        self.focus = [self._focus(node) for node in features]
        score = score_of(graph)
        self.is_known = self._call(score, formulas.is_known, score, images_per_sample)

    def site(self, node: fx.Node) -> dict[str, fx.Node]:
        """The nodes of one call site's results."""
        importance = self.names[node.meta[keys.IMPORTANCE]]
        x, step = self._finite(node), node.meta.get(keys.STEP)
        z = x if step is None or step.node == node.name else self.names[step.node]
        made = self._map(node, importance, x, z)
        found = self._trust(node, x, z) if self.options.inverts else {}
        known = (made, self.is_known, found.get("norm_ratio"))
        found["maps"] = self._call(node, formulas.where_known, *known)
        if "bpfm" in self.options.keep:
            found["bpfm"] = z
        if "importance" in self.options.keep:
            found["importance"] = importance
        return found | self._use(node)

    def _map(self, node: fx.Node, importance: fx.Node, x: fx.Node, z: fx.Node) -> fx.Node:
        """The map of a call site."""
        labels = node.meta[keys.LABELS]
        space = tuple(d for d, label in enumerate(labels) if label == "S")
        channel = labels.index("C")
        focus = [made for axes, made in self.focus if axes == len(space)]
        if self.options.method == "focused":
            return self._call(node, focused, importance, x, focus, channel)
        values = z if self.options.method == "naflow" else x
        return self._call(node, self.reduce, importance, values, channel, space)

    def _focus(self, node: fx.Node) -> tuple[int, fx.Node]:
        """A feature node's number of space axes, and its map."""
        importance = self.names[node.meta[keys.IMPORTANCE]]
        labels = node.meta[keys.LABELS]
        made = self._call(node, focus_map, importance, node, labels.index("C"))
        return labels.count("S"), made

    def _use(self, node: fx.Node) -> dict[str, fx.Node]:
        """Which neurons take part; all of what is captured whole."""
        found: dict[str, fx.Node] = {}
        wanted = ("used", keys.USED, use.used), ("neuron_times", keys.TIMES, use.whole)
        for part, key, made in wanted:
            if part in self.options.keep:
                count = self.known(node, key) or self._call(node, use.everywhere, node)
                found[part] = self._call(node, made, count)
        return found

    def _finite(self, node: fx.Node) -> fx.Node:
        """The activation, without the infinite border that a pad gives it for a max pool."""
        rule = _graph.rule_of(node)
        if rule is None or rule.infinite is None:
            return node
        infinite = rule.infinite(**_graph.asked(rule.infinite, node.kwargs))
        return self._call(node, formulas.finite, node) if infinite else node

    def _trust(self, node: fx.Node, x: fx.Node, z: fx.Node) -> dict[str, fx.Node]:
        """How far the inverse can be trusted: 0 and 1 where the activation itself is taken."""
        if z is x:
            return {"residual": self._call(node, formulas.zero_like, x),
                    "norm_ratio": self._call(node, formulas.one_like, x)}  # fmt: skip
        step: Step = node.meta[keys.STEP]
        residual = self.names.get(step.residual) or self._call(node, formulas.zero_like, x)
        length = self.known(z, keys.NORM) or self._call(node, least_squares.solver_norm, z)
        own = self._call(node, least_squares.solver_norm, x)
        norm_ratio = self._call(node, least_squares.relative, length, own)
        found = {"residual": residual, "norm_ratio": norm_ratio}
        if step.sigma is not None:
            sigma = self.names[str(step.sigma)]
            found["sigma_max"] = self._call(node, least_squares.each, sigma, norm_ratio)
        return found

    def _call(self, node: fx.Node, function: Any, *args: Any) -> fx.Node:
        word = "map" if function is self.reduce else function.__name__
        return self.call(node, function, args, word)
