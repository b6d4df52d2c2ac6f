"""What the tests of whole networks share: models with seeded weights, images, an oracle.

The oracle knows nothing of the compiler: torchvision's tracer and names, an interpreter that
keeps every intermediate and writes nothing in place, and autograd.
"""

from __future__ import annotations

import copy
import inspect
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torchvision
from hazards import EXPORTED, UNTRACEABLE
from hazards import HAZARDS as HAZARDS
from seeded import fill as fill
from seeded import images as images
from seeded import unit as unit
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import NodePathTracer
from torchvision.ops import StochasticDepth

Score = Callable[[Any], Tensor]
SHELF: Mapping[str, type[nn.Module]] = {**HAZARDS, **EXPORTED, **UNTRACEABLE}


def hazard(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A network of the shelf of hazards, in train mode as its constructor leaves it."""
    return fill(SHELF[name]()).to(dtype)


def hazard_images(name: str, batch: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    """Images for it."""
    return images(HAZARDS[name].shape if name in HAZARDS else (3, 12, 12), batch, dtype)


def two_heads(output: Any) -> Tensor:
    """A score of a network with two outputs."""
    first, second = output
    score: Tensor = first[:, 1] - 0.5 * second[:, 2]
    return score


def class_one(output: Any) -> Tensor:
    """The logit of class 1."""
    score: Tensor = output[:, 1]
    return score


def score_of(name: str) -> Score:
    """A score that fits what the hazard returns."""
    return two_heads if name == "two_heads" else class_one


def resnet18(**options: Any) -> nn.Module:
    """torchvision's, with seeded weights and ten classes."""
    return network("resnet18", **options)


def network(name: str, dtype: torch.dtype = torch.float64, **options: Any) -> nn.Module:
    """A network of torchvision with seeded weights, ten classes, and small linear layers."""
    made: Any = torchvision.models.get_model(name, num_classes=10, **options)
    if name.startswith("vgg"):  # 100 million weights in the first one
        made.classifier[0] = nn.Linear(512 * 49, 32)
        made.classifier[3] = nn.Linear(32, 32)
        made.classifier[6] = nn.Linear(32, 10)
    return fill(made).to(dtype)


def densenet() -> nn.Module:
    """A DenseNet of two blocks of two layers."""
    made = torchvision.models.DenseNet(8, (2, 2), 16, bn_size=2, num_classes=10)
    return fill(made).double()


class Reference:
    """A model's forward pass in eval mode, every intermediate under torchvision's name."""

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        twin = copy.deepcopy(model).eval()
        tracer = NodePathTracer(leaf_modules=[StochasticDepth])
        rest = list(inspect.signature(twin.forward).parameters.values())[1:]
        defaults = {p.name: p.default for p in rest}
        graph = tracer.trace(twin, concrete_args=defaults or None)
        run = _Recorder(fx.GraphModule(twin, graph))
        self.input = x.clone().requires_grad_()
        with torch.enable_grad():
            self.output = run.run(self.input, *defaults.values())
        names = {node.name: name for node, name in tracer.node_to_qualname.items()}
        names = _site_names(graph, names, {path for path, _ in twin.named_modules()})
        self.values: dict[str, Tensor] = {names[k]: v for k, v in run.found.items()}

    def gradients(self, score: Score) -> dict[str, Tensor]:
        """d score / d value of every intermediate that the score depends on."""
        values = {k: v for k, v in self.values.items() if v.requires_grad}
        with torch.enable_grad():
            total = score(self.output).sum()
            found = torch.autograd.grad(total, list(values.values()), allow_unused=True)
        return {k: g for k, g in zip(values, found, strict=True) if g is not None}


def _site_names(graph: fx.Graph, torchvisions: dict[str, str], paths: set[str]) -> dict[str, str]:
    """torchvision's names, but a module's first call has its path, and nothing else has one."""
    found = dict[str, str]()
    for node in graph.nodes:
        name = str(node.target) if node.op == "call_module" else torchvisions.get(node.name, "")
        if node.op == "call_module" and name not in found.values():
            found[node.name] = name
        elif name:
            base = name if node.op == "call_module" else re.sub(r"_\d+$", "", name)
            names = (base, *(f"{base}_{i}" for i in range(1, 999)))
            taken = paths | set(found.values())
            found[node.name] = next(n for n in names if n not in taken)
    return found


OUT_OF_PLACE: dict[Any, Any] = {operator.iadd: operator.add, torch.relu_: torch.relu}


class _Recorder(fx.Interpreter):
    """Runs a graph out of place: who reads an overwritten tensor later, reads the new one."""

    def __init__(self, gm: fx.GraphModule) -> None:
        super().__init__(gm, garbage_collect_values=False)
        self.found: dict[str, Tensor] = {}
        self.from_input: set[fx.Node] = set()
        self.same_as: dict[fx.Node, fx.Node] = {}
        modules = dict(gm.named_modules())
        self.in_place = {name for name, m in modules.items() if getattr(m, "inplace", False)}
        for name in self.in_place:
            modules[name].inplace = False

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.op == "placeholder" or any(s in self.from_input for s in n.all_input_nodes):
            self.from_input.add(n)
        if not isinstance(value, Tensor) or n.op == "output":
            return value
        sources = [s for s in n.all_input_nodes if self.env[s] is value]
        if sources:  # dropout in eval mode hands its input on: another site, the same memory
            self.same_as[n] = self._root(sources[0])
            value = value.clone()
        if n in self.from_input:
            self.found[n.name] = value
        if self._is_in_place(n):
            written = n.all_input_nodes[0]
            for other in list(self.env):
                if self._root(other) is self._root(written):
                    self.env[other] = value
        return value

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        kwargs = {k: v for k, v in kwargs.items() if k != "inplace"}
        return super().call_function(OUT_OF_PLACE.get(target, target), args, kwargs)

    def _is_in_place(self, n: fx.Node) -> bool:
        if n.op == "call_module":
            return n.target in self.in_place
        return n.target in OUT_OF_PLACE or n.kwargs.get("inplace") is True

    def _root(self, n: fx.Node) -> fx.Node:
        while n in self.same_as:
            n = self.same_as[n]
        return n


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """max |found - wanted| / max |wanted|."""
    assert found.shape == wanted.shape, (found.shape, wanted.shape)
    return float((found - wanted).abs().max() / wanted.abs().max().clamp_min(1e-300))
