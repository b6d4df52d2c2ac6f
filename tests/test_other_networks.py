"""Other networks than image classifiers: segmentation, detection, video, 1-d, siamese."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from shelf import Reference, fill, images, relative_error
from torch import Tensor, nn

import naflow_fx as nf
from naflow_fx.errors import NaflowWarning

STEPS = nf.Inverse(steps=2)


class UNet(nn.Module):
    """Skips across scales, a transposed convolution, bilinear upsampling; a map per class."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, 2, 1)
        self.down3, self.up2 = nn.Conv2d(16, 16, 3, 2, 1), nn.ConvTranspose2d(16, 16, 2, 2)
        self.up1 = nn.Upsample(scale_factor=2, mode="bilinear")
        self.mix2, self.mix1 = nn.Conv2d(32, 8, 3, padding=1), nn.Conv2d(16, 5, 3, padding=1)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Any:
        a = self.relu(self.down1(x))
        b = self.relu(self.down2(a))
        c = self.relu(self.down3(b))
        y = self.relu(self.mix2(torch.cat([b, self.up2(c)], 1)))
        return self.mix1(torch.cat([a, self.up1(y)], 1))


def waves() -> nn.Module:
    """A 1-d CNN."""
    return nn.Sequential(
        nn.Conv1d(3, 8, 7, 2, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(3, 2, 1),
        nn.Conv1d(8, 16, 3), nn.LeakyReLU(0.1), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
        nn.Linear(16, 4),
    )  # fmt: skip


def lraspp() -> nn.Module:
    made: nn.Module = torchvision.models.segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None
    )
    return made


def pyramid() -> nn.Module:
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    made: nn.Module = resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    return made


def logit(output: Any) -> Tensor:
    score: Tensor = output[:, 1]
    return score


def class_map(output: Any) -> Tensor:
    score: Tensor = output[:, 1].mean((1, 2))
    return score


def segmentation(output: Any) -> Tensor:
    return class_map(output["out"])


def two_levels(output: Any) -> Tensor:
    return class_map(output["0"]) + class_map(output["pool"])


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], Callable[[Any], Tensor]]] = {
    "segmentation": (lraspp, (3, 64, 64), segmentation),
    "unet": (UNet, (3, 32, 32), class_map),
    "detection backbone": (pyramid, (3, 64, 64), two_levels),
    "video": (torchvision.models.video.r3d_18, (3, 4, 16, 16), logit),
    "1-d": (waves, (3, 64), logit),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_importance_equals_autograd_and_maps_are_finite(name: str) -> None:
    build, shape, target = NETWORKS[name]
    model, x = fill(build()).double(), images(shape)
    flow = nf.compile(model, x, target=target, keep="importance", inverse=STEPS)(x)
    gradients = Reference(model, x).gradients(target)
    for site, found in flow.importance.items():
        assert relative_error(found, gradients[site]) < 1e-8, site
        assert flow.maps[site].shape[1:] == found.shape[2:] and flow.maps[site].isfinite().all()
    assert len(flow.maps) >= 7 and max(float(m.max()) for m in flow.maps.values()) > 0


class Siamese(nn.Module):
    """One tower for two images; the logits come from the difference of what it makes of them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3)
        self.head = nn.Linear(8, 2)

    def tower(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x)))).mean((2, 3))

    def forward(self, a: Tensor, b: Tensor) -> Any:
        return self.head(self.tower(a) - self.tower(b))


class EarlyFusion(nn.Module):
    """Two images merged near the input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3), nn.Conv2d(3, 6, 3)
        self.conv, self.head = nn.Conv2d(6, 8, 3), nn.Linear(8, 2)

    def forward(self, a: Tensor, b: Tensor) -> Any:
        merged = F.relu(self.first(a) + self.second(b))
        return self.head(F.relu(self.conv(merged)).mean((2, 3)))


@pytest.mark.parametrize("kind", [Siamese, EarlyFusion])
def test_two_inputs(kind: type[nn.Module]) -> None:
    model, pair = fill(kind()).double(), images((3, 16, 16), batch=2)
    a, b = pair, pair.flip(0)
    explainer = nf.compile(model, (a, b), keep=("importance", "bpfm"))
    flow = explainer((a, b), target=1)
    given = [x.clone().requires_grad_() for x in (a, b)]
    wanted = torch.autograd.grad(model(*given)[:, 1].sum(), given)
    for site, gradient in zip(("a", "b"), wanted, strict=True):
        assert relative_error(flow.importance[site], gradient) < 1e-9
        assert flow.norm_ratio[site].min() > 0.01
    starts = [row.layer for row in explainer.inspect().rows if row.kind == "start"]
    assert len(starts) == (2 if kind is Siamese else 1)


def test_each_tower_has_a_flow_of_its_own() -> None:
    model, pair = fill(Siamese()).double(), images((3, 16, 16), batch=2)
    explainer = nf.compile(model, (pair, pair), keep="bpfm")
    flow = explainer((pair, pair.flip(0)), target=1)
    other = explainer((pair.flip(0), pair), target=1)
    torch.testing.assert_close(flow.bpfm["a"], other.bpfm["b"])
    assert relative_error(flow.bpfm["a"], flow.bpfm["b"]) > 0.01


def test_a_wrong_number_of_inputs_is_an_error() -> None:
    model, pair = fill(Siamese()).double(), images((3, 16, 16))
    explainer = nf.compile(model, (pair, pair))
    with pytest.raises(nf.NaflowError, match="got 1; the model takes 2"):
        explainer(pair)


class PaddedPool(nn.Module):
    """A cell of NASNet: max pool behind a border of minus infinity, beside two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, 2, 1)
        self.last, self.fc = nn.Conv2d(12, 6, 1), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        y = F.relu(self.left(x))
        pooled = F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=float("-inf")), 3, 2)
        x = torch.cat([y + pooled, y], 1)
        return self.fc(self.last(x).mean((2, 3)))


@pytest.mark.parametrize("method", ["naflow", "layercam", "gradcam"])
def test_border_of_minus_infinity(method: str) -> None:
    model, x = fill(PaddedPool()).double(), images((3, 12, 12))
    flow = nf.compile(model, x, method=method)(x)
    assert "pad" in flow.maps
    for values in (flow.maps, flow.residual, flow.norm_ratio):
        for site, value in values.items():
            assert value.isfinite().all(), site
    assert not flow.maps["pad"][:, -1].any()
    assert not flow.maps["pad"][:, :, -1].any()
    assert flow.maps["pad"].any()


class Frames(nn.Module):
    """Two frames per sample, [N, 6, H, W], through one network as one batch, inside a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), head(6, 4)

    def forward(self, x: Tensor) -> Any:
        frames = x.reshape(-1, 3, *x.shape[2:])
        y = F.relu(self.bn(self.conv(frames)))
        return self.fc(x + y.reshape(x.shape))


def head(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, outputs))


def test_frames_merged_into_the_batch() -> None:
    """c of the region is one number per channel, of N x 2 rows, where its output has N."""
    model, x = fill(Frames()).double(), images((6, 8, 8))
    with pytest.warns(
        NaflowWarning, match="1 convolutions and 1 batch norms have no map, from conv"
    ):
        explainer = nf.compile(model, x, inverse=nf.Inverse(damping=1e-12, steps=200), keep="bpfm")
    flow = explainer(x)
    assert flow.residual["x"].max() < 1e-6  # the region's map can be inverted
    assert relative_error(flow.bpfm["x"], x) < 1e-5  # and that gives back what came in
    for i in range(2):
        alone = explainer(x[i : i + 1])
        assert relative_error(alone.maps["x"], flow.maps["x"][i : i + 1]) < 1e-6
