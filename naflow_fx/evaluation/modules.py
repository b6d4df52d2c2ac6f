"""A network as one graph of modules, for libraries that hook modules.

What is no module (``F.relu``, ``x * gate``) gets the plain gradient from them, a module that is
called twice is wrong or refused, and what is overwritten in place is lost to a hook.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from naflow_fx import keys
from naflow_fx.errors import EvaluationError
from naflow_fx.passes.copy_model import evaluated
from naflow_fx.passes.remove_in_place import overwritten, remove_in_place
from naflow_fx.passes.trace import PathTracer
from naflow_fx.selection import no_site

Kinds = tuple[type, ...]
SUMS = (operator.add, operator.iadd, torch.add)
MOVES = (torch.flatten, torch.cat, torch.reshape, getattr, operator.getitem,
         "flatten", "view", "reshape", "size", "contiguous")  # fmt: skip
LINEAR = (nn.Linear, nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm, nn.Identity,
          nn.modules.pooling._AvgPoolNd, nn.modules.pooling._AdaptiveAvgPoolNd, nn.Flatten,
          nn.modules.dropout._DropoutNd, nn.modules.padding._ConstantPadNd)  # fmt: skip


def twin(model: nn.Module) -> nn.Module:
    """A copy of the network in eval mode with its hooks; where deepcopy fails (weight norm), too.

    Raises:
        TraceError: it can't be copied.
    """
    return evaluated(model, torch.clone, hooks=True)


def modular(model: nn.Module, known: Kinds | None = None) -> fx.GraphModule:
    """A copy of the network as one graph: a module for every call, none of which writes in place.

    Nodes have the names of `nf.compile`'s call sites, under `keys.SITE`.

    Args:
        model: the network; left as it is.
        known: kinds of nonlinear modules that a library has rules for; None: it needs none.

    Raises:
        EvaluationError: torch.fx can't trace it, or a step is neither linear nor known.
    """
    frozen = evaluated(model)
    try:
        network = remove_in_place(fx.GraphModule(frozen, PathTracer().trace(frozen)))
    except Exception as error:
        text = f"{type(model).__name__}: torch.fx can't trace it, and a library that hooks modules"
        raise EvaluationError(f"{text} needs a graph of them ({error})") from error
    for i, node in enumerate(network.graph.nodes):
        if node.op == "call_module":
            module = copy.deepcopy(network.get_submodule(node.target))
            if hasattr(module, "inplace"):
                setattr(module, "inplace", False)  # noqa: B010
            node.target = f"call_{i}"
            network.add_submodule(node.target, module)
        elif node.target is operator.iadd:
            node.target = operator.add
        elif node.kwargs.get("inplace"):
            node.update_kwarg("inplace", False)
    network.delete_all_unused_submodules()
    network.recompile()
    _check(network, known, type(model).__name__)
    return network


def _check(network: fx.GraphModule, known: Kinds | None, name: str) -> None:
    """EvaluationError: a step that no rule is known for, or that overwrites what hooks keep."""
    found: dict[str, list[str]] = {"no rule for": [], "written in place by": []}
    for node in network.graph.nodes:
        kind = getattr(node.target, "__name__", node.target)
        strange = node.op.startswith("call") and node.target not in (*SUMS, *MOVES)
        if node.op == "call_module":
            module = network.get_submodule(node.target)
            kind, strange = type(module).__name__, not isinstance(module, (*LINEAR, *(known or ())))
        if overwritten(network, node) is not None:
            found["written in place by"].append(f"{node.meta[keys.SITE]} ({kind})")
        elif strange and known is not None:
            found["no rule for"].append(f"{node.meta[keys.SITE]} ({kind})")
    if any(found.values()):
        told = "; ".join(f"{text} {', '.join(nodes)}" for text, nodes in found.items() if nodes)
        raise EvaluationError(f"{name}: {told}; a library that hooks modules is wrong there")


def until(
    network: fx.GraphModule, layers: Sequence[str], having: str = keys.SITE
) -> fx.GraphModule:
    """(images) -> {layer: its tensor}; of nodes with the key `having`.

    Raises:
        EvaluationError: no such call site.
    """
    graph, done = fx.Graph(network), dict[fx.Node, fx.Node]()
    graph.graph_copy(network.graph, done)
    sites = {node.meta.get(keys.SITE): new for node, new in done.items() if having in node.meta}
    absent = [layer for layer in layers if layer not in sites]
    if absent:
        raise no_site(EvaluationError, list(map(str, sites)), absent)
    graph.output({layer: sites[layer] for layer in layers})
    graph.eliminate_dead_code()
    return fx.GraphModule(network, graph)


def beyond(network: fx.GraphModule, layer: str) -> fx.GraphModule:
    """(x, images) -> output: the network with x in place of a layer's tensor.

    What reaches the output beside it (a shortcut) is computed from the images.
    """
    graph, done = fx.Graph(network), dict[fx.Node, Any]()
    x = graph.placeholder("in_place_of_layer")
    for node in network.graph.nodes:
        done[node] = graph.node_copy(node, done.__getitem__)
        if node.meta.get(keys.SITE) == layer:
            done[node] = x
    graph.eliminate_dead_code()
    return fx.GraphModule(network, graph)


def with_sums(model: nn.Module, make: Callable[[], nn.Module]) -> fx.GraphModule:
    """The model with batch norms merged, and a module `make()` in place of every x + y.

    The module is given both terms stacked along a new last dimension.
    """
    from torch.fx.experimental.optimization import fuse

    traced = fx.symbolic_trace(fuse(model))
    for i, node in enumerate(list(traced.graph.nodes)):
        both = node.op == "call_function" and node.target in SUMS
        if both and all(isinstance(a, fx.Node) for a in node.args):
            traced.add_submodule(f"sum_{i}", make())
            with traced.graph.inserting_before(node):
                stacked = traced.graph.call_function(torch.stack, (list(node.args), -1))
                new = traced.graph.call_module(f"sum_{i}", (stacked,))
            node.replace_all_uses_with(new)
            traced.graph.erase_node(node)
    traced.recompile()
    return traced


def rescalable(network: fx.GraphModule) -> fx.GraphModule:
    """The network, changed so that captum's DeepLIFT is right: what it hooks is read by it alone.

    Its hook replaces the whole gradient of a module's input, a shortcut's part of it, too: every
    nonlinear module reads a copy.  ReLU6, which it takes for linear, becomes a `TwoReLU`.
    """
    for node in list(network.graph.nodes):
        if node.op != "call_module" or isinstance(network.get_submodule(node.target), LINEAR):
            continue
        if isinstance(network.get_submodule(node.target), nn.ReLU6):
            network.add_submodule(node.target, TwoReLU())
        with network.graph.inserting_before(node):
            node.args = (network.graph.call_method("clone", node.args[:1]), *node.args[1:])
    network.recompile()
    return network


class TwoReLU(nn.Module):
    """min(max(x, 0), 6) as relu(x) - relu(x - 6).

    Both inputs change alike, so that DeepLIFT's multiplier of the difference is that of the whole.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """As x."""
        result: Tensor = self.first(x.clone()) - self.second(x - 6)
        return result
