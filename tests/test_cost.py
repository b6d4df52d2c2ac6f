"""What an explanation costs, counted in operators: no other process can slow a count down."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from shelf import fill, images
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import naflow_fx as nf
from naflow_fx import models

NETWORKS = ("resnet18", "efficientnet_lite0")
CONVOLUTION = (
    torch.ops.aten.convolution.default,
    torch.ops.mkldnn._convolution_pointwise.default,
    torch.ops.mkldnn._convolution_transpose_pointwise.default,
)
# Convolutions of the default, 1 x 1 ones (products), three of the classifier and the eight products
# of small matrices of each region's sigma_max among them: at most as many as now.  Lower these when
# it gets cheaper.
CONVOLUTIONS = {"resnet18": 704, "efficientnet_lite0": 1041}
# All operators for one of the model's own: now 148 and 113.  The margin is less than one step of
# the solver, 10 and 9.
OPERATORS = {"resnet18": 154, "efficientnet_lite0": 117}


class Count(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operators called in its `with` block."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernels = self.products = self.operators = 0

    @property
    def convolutions(self) -> int:
        """Transposed ones, which may be convolutions of a turned weight, and 1 x 1 ones too."""
        return self.kernels + self.products

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operators += 1
        if func in CONVOLUTION:
            self.kernels += 1
        elif func in (torch.ops.aten.bmm.default, torch.ops.aten.mm.default):
            self.products += 1
        return func(*args, **(kwargs or {}))


@cache
def network(name: str) -> nn.Module:
    with torch.no_grad():
        return fill(models.build(name)).eval()


@cache
def count(name: str, method: Any = "naflow", steps: int | None = None) -> Count:
    """Of one explanation of two images; in float32, so that the machine's units don't matter."""
    x = images((3, 64, 64), dtype=torch.float32)
    inverse = nf.Inverse(steps=steps, precision="float32")
    explainer = nf.compile(network(name), x[:1], method=method, inverse=inverse)
    found = Count()
    with found:
        explainer(x)
    return found


@cache
def count_forward(name: str) -> Count:
    found = Count()
    with torch.no_grad(), found:
        network(name)(images((3, 64, 64), dtype=torch.float32))
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_the_default_costs_no_more_convolutions(name: str) -> None:
    assert count(name).convolutions <= CONVOLUTIONS[name]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_default_costs_no_more_operators(name: str) -> None:
    assert count(name).operators <= OPERATORS[name] * count_forward(name).operators


@pytest.mark.parametrize("name", NETWORKS)
def test_every_step_costs_the_same(name: str) -> None:
    """Each step runs every layer of a least squares once forward and once transposed."""
    two, three, five = (count(name, steps=steps) for steps in (2, 3, 5))
    layers, uneven = divmod(three.kernels - two.kernels, 2)
    assert layers and not uneven
    products = three.products - two.products
    assert five.convolutions == two.convolutions + 3 * (2 * layers + products)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("method", ["layercam", "gradcam", "hirescam", "focused"])
def test_a_gradient_method_costs_one_transposed_convolution_each(name: str, method: str) -> None:
    found, own = count(name, method), count_forward(name)
    layers = [m for m in network(name).modules() if isinstance(m, nn.Conv2d)]
    pointwise = sum(m.kernel_size == (1, 1) and m.groups == 1 for m in layers)
    assert found.kernels == 2 * own.kernels - pointwise
    smoothing = found.products - pointwise - 3  # of the classifier
    assert smoothing > 0 if method == "focused" else smoothing == 0


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_layer_costs_two_convolutions_a_step(steps: int) -> None:
    """Its own and Lambda's, then one forward and one transposed a step.  No offset."""
    layer = nn.Conv2d(3, 4, 3, bias=False)
    net = nn.Sequential(layer, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    x = images((3, 9, 9), dtype=torch.float32)
    explainer = nf.compile(net, x[:1], inverse=nf.Inverse(steps=steps, precision="float32"))
    found = Count()
    with found:
        explainer(x)
    assert found.kernels == 2 * (1 + steps)
