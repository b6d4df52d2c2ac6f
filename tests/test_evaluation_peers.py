"""Other libraries' methods: right where hooks alone would be wrong, refused where they would be."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import naflow_fx as nf
from naflow_fx.errors import EvaluationError
from naflow_fx.evaluation import peers
from naflow_fx.evaluation.methods import AT_LAYERS, OF_THE_INPUT, make
from naflow_fx.evaluation.modules import beyond, modular, rescalable, until, with_sums
from naflow_fx.evaluation.synthetic import SmallCNN, synthetic

TARGET = torch.tensor([4, 0])
LAST = "3.relu_1"  # of the small CNN: then mean and linear


class Hazards(nn.Module):
    """A shortcut round a ReLU, ReLU6 in place, a ReLU called twice, `+=`."""

    def __init__(self, in_place: bool = True) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.conv1, self.conv2 = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.bn, self.relu, self.relu6 = nn.BatchNorm2d(4), nn.ReLU(), nn.ReLU6(in_place)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 6))
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, 6]."""
        x = self.stem(x)
        y = self.conv1(self.relu(x))
        if self.in_place:
            y += x
        else:
            y = y + x
        result: Tensor = self.head(self.relu(self.conv2(self.relu6(self.bn(y)))))
        return result


def seeded(network: nn.Module) -> nn.Module:
    """In float64, with batch norms that shift and scale so much that ReLU6 saturates."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / tensor[0].numel() ** 0.5)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.abs_().add_(3)
                module.running_mean = 0.3 * torch.randn(module.bias.shape, generator=generator)
    return network.double().eval()


@pytest.fixture(scope="module")
def small() -> nn.Module:
    return seeded(SmallCNN(4))


@pytest.fixture(scope="module")
def images() -> Tensor:
    return synthetic(2).images.double()


def scores(network: nn.Module, x: Tensor) -> Tensor:
    """Of the targets, [2]."""
    with torch.no_grad():
        found: Tensor = network(x).gather(1, TARGET[:, None])[:, 0]
    return found


@pytest.mark.parametrize("name", ["small", "hazards", "lite0"])
def test_contributions_add_up_to_the_change_of_the_score(
    name: str, small: nn.Module, images: Tensor
) -> None:
    captum = pytest.importorskip("captum.attr")
    lite = nf.models.build("efficientnet_lite0", pretrained=True).double()
    network = {"small": small, "hazards": seeded(Hazards()), "lite0": lite}[name]
    x = F.interpolate(images, 64) if name == "lite0" else images
    ready = rescalable(modular(network, peers.RESCALED))
    found = peers.contributions(captum, ready, x, TARGET)
    torch.testing.assert_close(
        found.flatten(1).sum(1), scores(network, x) - scores(network, 0 * x), rtol=1e-6, atol=1e-8
    )
    if name == "lite0":
        torch.testing.assert_close(peers.deep_lift(lite)(x, TARGET), found.sum(1).abs())


@pytest.mark.parametrize("step", ["relu6", "shortcut"])
def test_captum_by_itself_misses(step: str, images: Tensor) -> None:
    captum = pytest.importorskip("captum.attr")

    class Plain(Hazards):
        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            y = self.relu6(self.bn(x)) if step == "relu6" else self.relu(x) + x
            result: Tensor = self.head(y)
            return result

    network = seeded(Plain(in_place=False))
    found = peers.contributions(captum, network, images, TARGET).flatten(1).sum(1)
    wanted = scores(network, images) - scores(network, 0 * images)
    assert ((found - wanted).abs() > 0.05 * wanted.abs()).all()
    with pytest.raises(RuntimeError, match="used more than once"):
        peers.contributions(captum, seeded(SmallCNN(4)), images, TARGET)


def test_zennit_by_itself_makes_relevance_of_a_sum(images: Tensor) -> None:
    composites = pytest.importorskip("zennit.composites")

    class Doubled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.flatten(x, 1) + torch.flatten(x, 1)

    for network in (Doubled(), with_sums(Doubled(), pytest.importorskip("zennit.layer").Sum)):
        given = (composites.EpsilonPlus(), network, images, TARGET, 0.0)
        total = peers.relevances(*given).flatten(1).sum(1)
        wanted = 2.0 if isinstance(network, Doubled) else 1.0
        torch.testing.assert_close(total, torch.full((2,), wanted).double(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("layer", ["input", "1.relu", "2.bn2", LAST])
def test_lift_cams_weights_are_what_the_layer_adds(
    layer: str, small: nn.Module, images: Tensor
) -> None:
    captum = pytest.importorskip("captum.attr")
    network = rescalable(modular(small, peers.RESCALED))
    x, rest = until(network, [layer])(images)[layer], beyond(network, layer)
    torch.testing.assert_close(rest(x, images), small(images))
    weights = peers.contributions(captum, rest, x, TARGET, images).sum((2, 3))
    without = rest(torch.zeros_like(x), images).gather(1, TARGET[:, None])[:, 0]
    torch.testing.assert_close(weights.sum(1), scores(small, images) - without)
    wanted = F.relu((weights[..., None, None] * x).sum(1))
    torch.testing.assert_close(peers.lift_cam(small, [layer])(images, TARGET)[layer], wanted)


def test_the_cams_before_mean_and_linear_by_hand(small: nn.Module, images: Tensor) -> None:
    for library in ("captum", "zennit"):
        pytest.importorskip(library)
    x, linear = until(modular(small), [LAST])(images)[LAST], small.get_submodule("4.2")
    assert isinstance(linear, nn.Linear) and x.min() == 0
    mean = x.mean((2, 3))
    lift = linear.weight[TARGET] * mean
    positive, bias = linear.weight.clamp_min(0), linear.bias.clamp_min(0)
    start = torch.full((2, 6), -1 / 6).double().scatter(1, TARGET[:, None], 1.0)
    share = start / (mean @ positive.T + bias)
    relevance = mean * (share @ positive)
    for name, weights in (("lift-cam", lift), ("relevance-cam", relevance)):
        wanted = F.relu((weights[..., None, None] * x).sum(1))
        found = AT_LAYERS[name](small, [LAST])(images, TARGET)[LAST]
        assert wanted.abs().sum() > 0
        torch.testing.assert_close(found, wanted.detach(), rtol=1e-4, atol=1e-6)


def test_full_grad_by_hand(images: Tensor) -> None:
    pytest.importorskip("pytorch_grad_cam")
    network = seeded(Hazards(in_place=False))
    x = images.requires_grad_()
    steps = until(modular(network), ["stem", "conv1", "bn", "conv2", "head.2"])(x)
    score = steps.pop("head.2").gather(1, TARGET[:, None]).sum()
    gradients = torch.autograd.grad(score, [x, *steps.values()])
    state = network.state_dict()
    shift = (
        state["bn.bias"]
        - state["bn.running_mean"] * state["bn.weight"] / (state["bn.running_var"] + 1e-5).sqrt()
    )
    biases = [state["stem.bias"], state["conv1.bias"], shift, state["conv2.bias"]]
    parts = [x, *(b[:, None, None] for b in biases)]
    total = torch.zeros(2, 48, 48).double()
    for part, gradient in zip(parts, gradients, strict=True):
        found = (part * gradient).abs().detach()
        low = found.amin((2, 3), keepdim=True)
        found = (found - low) / (1e-7 + (found - low).amax((2, 3), keepdim=True))
        total += F.interpolate(found, (48, 48), mode="bilinear", align_corners=False).sum(1)
    ours = peers.full_grad(network)(images, TARGET).double()
    low = total.amin((1, 2), keepdim=True)
    wanted = (total - low) / (total - low).amax((1, 2), keepdim=True)
    np.testing.assert_allclose(ours, wanted, atol=1e-4)


def test_what_is_written_in_place_changes_nothing(images: Tensor) -> None:
    for library in ("captum", "zennit", "pytorch_grad_cam"):
        pytest.importorskip(library)
    plain, hazards = seeded(Hazards(in_place=False)), seeded(Hazards(in_place=True))
    layers = ["stem", "bn", "add", "relu_1"]
    for name in (*AT_LAYERS, "full-grad", "deep-lift", "lrp"):
        of_layers = layers if name in AT_LAYERS else None
        wanted, found = (make(name, n, images[:1], of_layers)(images, TARGET)
                         for n in (plain, hazards))  # fmt: skip
        torch.testing.assert_close(found, wanted)
    assert hazards.get_submodule("relu6").inplace


def test_gradient_channelwise_is_importance_times_activation(images: Tensor) -> None:
    network = seeded(Hazards())
    explainer = nf.compile(network, images[:1], method="hirescam", keep=("importance",))
    flow = explainer(images, TARGET)
    activation = until(modular(network), explainer.layers)(images)
    found = make("gradient-channelwise", network, images[:1])(images, TARGET)
    for layer in explainer.layers:
        wanted = F.relu(flow.importance[layer] * activation[layer]).sum(1)
        torch.testing.assert_close(found[layer], wanted.detach())


class Functional(nn.Module):
    """ReLU as a function, and a gate."""

    def __init__(self, overwrites: bool = False) -> None:
        super().__init__()
        self.conv, self.gate, self.overwrites = nn.Conv2d(3, 4, 3), nn.SiLU(), overwrites

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, 4]."""
        x = self.conv(x)
        x = x.relu_() if self.overwrites else F.relu(x)
        result: Tensor = torch.flatten(self.gate(x) * x, 1)[:, :6]
        return result


@pytest.mark.parametrize("name", ["deep-lift", "lrp"])
def test_a_step_without_a_rule_is_refused_by_name(name: str) -> None:
    pytest.importorskip("captum")
    pytest.importorskip("zennit")
    with pytest.raises(EvaluationError, match=r"no rule for relu \(relu\).*mul \(mul\)"):
        OF_THE_INPUT[name](Functional())


def test_what_a_function_overwrites_is_refused_by_name() -> None:
    with pytest.raises(EvaluationError, match=r"written in place by relu_ \(relu_\)"):
        modular(Functional(overwrites=True))


def test_an_unknown_layer_and_an_untraceable_network_are_told() -> None:
    pytest.importorskip("captum")

    class Branches(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(EvaluationError, match=r"no call site is named 9\.relu"):
        peers.lift_cam(SmallCNN(4), ["9.relu"])
    with pytest.raises(EvaluationError, match="Branches: torch.fx can't trace it"):
        peers.deep_lift(Branches())


def test_the_model_is_left_as_it_is() -> None:
    pytest.importorskip("zennit")
    network = Hazards()
    before = copy.deepcopy(network.state_dict())
    peers.lrp(network)(synthetic(2).images, TARGET)
    assert network.training and network.relu6.inplace
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
