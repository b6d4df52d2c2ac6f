"""Hard numbers: NaN, dead layers, odd sizes and counts give a defined result or a clear error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from shelf import relative_error
from torch import Tensor, nn

import naflow_fx as nf
from naflow_fx.rules import TABLE

NAN, INF = float("nan"), float("inf")
SIZE = (12, 12)


class Small(nn.Module):
    """Convolution, batch norm, ReLU, pool, a residual block, a gate, a linear head."""

    def __init__(self, channels: int = 3, classes: int = 5, pool: int = 2) -> None:
        super().__init__()
        self.conv1, self.bn = nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.gate = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.pool, self.head = nn.MaxPool2d(pool), nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Any:
        x = self.pool(torch.relu(self.bn(self.conv1(x))))
        x = torch.relu(x + self.conv2(x))
        x = x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        return self.head(x.mean((2, 3)))


def small(**options: int) -> Small:
    """Seeded, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Small(**options).eval()


def photos(batch: int = 2, channels: int = 3, size: tuple[int, int] = SIZE) -> Tensor:
    """Seeded numbers in [0, 1]."""
    generator = torch.Generator().manual_seed(1)
    return torch.rand(batch, channels, *size, generator=generator)


def assert_defined(flow: nf.AttentionFlow) -> None:
    """Maps are finite and not below 0, residuals finite, norm ratios infinite at most over 0."""
    assert flow.maps and flow.score.isfinite().all()
    assert all(x.isfinite().all() and (x >= 0).all() for x in flow.maps.values())
    assert all(x.isfinite().all() for x in flow.residual.values())
    assert all(x.isfinite().all() for x in flow.sigma_max.values())
    assert not any(x.isnan().any() for x in flow.norm_ratio.values())


# NaN and infinity.


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("method", ["naflow", "layercam"])
def test_one_bad_pixel_makes_its_images_maps_nan_and_no_others(value: float, method: str) -> None:
    x = photos(3)
    explainer = nf.compile(small(), x, method=method)
    wanted = explainer(x)
    x[1, 0, 3, 3] = value
    flow = explainer(x)
    assert flow.score.isfinite().tolist() == [True, False, True]
    for name, found in flow.maps.items():
        assert found[1].isnan().all(), name
        assert torch.equal(found[::2], wanted.maps[name][::2]), name


@pytest.mark.parametrize("value", [NAN, INF])
def test_bad_weights_make_all_maps_nan(value: float) -> None:
    model = small()
    model.conv2.weight.data[0, 0, 0, 0] = value
    flow = nf.compile(model, photos())(photos())
    assert not flow.score.isfinite().any()
    assert all(found.isnan().all() for found in flow.maps.values())


def test_pictures_of_nan_are_refused_by_image() -> None:
    x = photos(1)
    explainer = nf.compile(small(), x, layers="conv1")
    x[0, 0, 0, 0] = NAN
    with pytest.raises(nf.NaflowError, match="score of image 0 is not finite"):
        explainer(x).overlay(photos(1))


@pytest.mark.parametrize("value", [NAN, INF])
def test_a_decomposition_of_a_bad_image_or_model(value: float) -> None:
    x, model = photos(1), small()
    x[0, 0, 3, 3] = value
    with pytest.raises(nf.NaflowError, match="the score is nan; look for NaN and infinity"):
        nf.decompose(model, x)
    model.conv2.weight.data[0, 0, 0, 0] = NAN
    with pytest.raises(nf.NaflowError, match="the score is nan; look for NaN and infinity"):
        nf.decompose(model, photos(1))


# Dead layers and images without contrast.


def variance_0(model: Small) -> None:
    assert model.bn.running_var is not None
    model.bn.running_var.zero_()


def some_variances_0(model: Small) -> None:
    assert model.bn.running_var is not None
    model.bn.running_var[:3] = 0


def gamma_0(model: Small) -> None:
    model.bn.weight.data.zero_()


def some_gammas_0(model: Small) -> None:
    model.bn.weight.data[:4] = 0


def zero_weights(model: Small) -> None:
    model.conv2.weight.data.zero_()


def zero_feature_maps(model: Small) -> None:
    model.bn.weight.data.zero_()
    model.bn.bias.data.fill_(-1)
    assert model.conv2.bias is not None
    model.conv2.bias.data.fill_(-1)


def closed_gate(model: Small) -> None:
    assert model.gate.bias is not None
    model.gate.bias.data.fill_(-1e4)


@pytest.mark.parametrize(
    "change",
    [variance_0, some_variances_0, gamma_0, some_gammas_0, zero_weights, zero_feature_maps,
     closed_gate],
)  # fmt: skip
def test_dead_layers(change: Callable[[Small], None]) -> None:
    model, x = small(), photos()
    change(model)
    assert_defined(nf.compile(model, x)(x))
    assert_defined(nf.compile(model, x, inverse=nf.Inverse(rows="all"))(x))
    evidence = [f["evidence"] for _, f in nf.decompose(model, x[:1]).tree.nodes(data=True)]
    assert all(abs(e) < INF for e in evidence)


def test_zero_feature_maps_give_zero_maps() -> None:
    model, x = small(), photos()
    zero_feature_maps(model)
    flow = nf.compile(model, x)(x)
    assert all(value.eq(0).all() for value in flow.maps.values())


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0, -1.0, 1e-40, 1e6])
def test_constant_images(value: float) -> None:
    x = torch.full((2, 3, *SIZE), value)
    assert_defined(nf.compile(small(), photos())(x))


def test_a_negative_score_is_explained_like_any_other() -> None:
    model, x = small(), photos()
    wanted = nf.compile(model, x)(x, 0)
    model.head.bias.data[0] = -100
    flow = nf.compile(model, x)(x, 0)
    assert (flow.score < 0).all() and any(value.any() for value in flow.maps.values())
    for name, value in flow.maps.items():
        assert not value.any() or relative_error(value, wanted.maps[name]) < 1e-5, name
    found = nf.decompose(model, x[:1], 0)
    assert found.score < 0 and found.tree.nodes["root"]["bias"] < -90


# Activations whose squares leave the dtype.

OPTIONS: list[dict[str, Any]] = [
    {}, {"reduction": "channelwise"}, {"inverse": nf.Inverse(damping=0, steps=11)},
    {"inverse": nf.Inverse(rows="all")}, {"method": "focused"},
    {"method": "focused", "layers": "bn"}, {"method": "layercam"},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("scale", [1e20, 1e30])
def test_where_squares_overflow_maps_are_nan_or_right(
    scale: float, options: dict[str, Any]
) -> None:
    x, model = photos(3), small()
    explainer = nf.compile(model, x, **options)
    before = explainer(x)
    x[1] *= scale
    flow = explainer(x)
    wanted = nf.compile(model.double(), x.double(), **options)(x.double())
    assert flow.score.isfinite().all()
    for name, found in flow.maps.items():
        assert torch.equal(found[::2], before.maps[name][::2]), name
        assert found[1].isnan().all() or cosine(found[1], wanted.maps[name][1]) > 0.999, name
    assert any(found[1].isnan().all() for found in flow.maps.values()) == ("method" not in options)


def test_where_squares_underflow_float64_has_room() -> None:
    x, model = photos(1), small()
    for name, parameter in model.named_parameters():  # all that would cover the photo's size
        if name.endswith("bias"):
            parameter.data.zero_()
    wanted = nf.compile(model.double(), x.double())(x.double())
    flow = nf.compile(model, x.double())(1e-30 * x.double())
    assert all(cosine(flow.maps[name], wanted.maps[name]) > 0.999 for name in flow.maps)
    tiny = nf.compile(model.float(), x)(1e-24 * x)
    assert_defined(tiny)
    assert tiny.maps["x"].eq(0).all()


def cosine(a: Tensor, b: Tensor) -> float:
    """Of two maps, neither zero, whatever their sizes."""
    a, b = ((m.double() / m.double().abs().max()).flatten() for m in (a, b))
    return float(a @ b / (a.norm() * b.norm()))


# Sizes and counts.


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2), (3, 3), (5, 7), (13, 9), (31, 17)])
def test_odd_sizes_and_single_pixels(size: tuple[int, int]) -> None:
    x = photos(2, size=size)
    flow = nf.compile(small(pool=1), x)(x)
    assert_defined(flow)
    for value in flow.maps.values():
        assert tuple(value.shape) in {(2, *size), (2, 1, 1)}
    assert {tuple(v.shape[1:]) for v in flow.upsampled().values()} == {size}


def test_an_image_too_small_for_the_network_is_one_clear_error() -> None:
    with pytest.raises(nf.NaflowError, match="Give an example of the size that the model takes"):
        nf.compile(small(pool=4), photos(2, size=(2, 2)))


def test_feature_maps_of_one_pixel() -> None:
    x = photos(2, size=(4, 4))
    flow = nf.compile(small(pool=4), x)(x)
    assert_defined(flow)
    assert flow.maps["bn"].shape == (2, 4, 4)
    assert {tuple(v.shape[1:]) for v in flow.upsampled().values()} == {(4, 4)}


@pytest.mark.parametrize("channels", [1, 12])
def test_channels(channels: int) -> None:
    x = photos(2, channels)
    flow = nf.compile(small(channels=channels), x)(x)
    assert_defined(flow)
    assert flow.maps["x"].shape == (2, *SIZE)
    if channels == 12:
        with pytest.raises(nf.NaflowError, match="Images can't be"):
            flow.overlay(x)


@pytest.mark.parametrize("classes", [1, 21_000])
def test_classes(classes: int) -> None:
    x = photos()
    explainer = nf.compile(small(classes=classes), x)
    flow = explainer(x)
    assert_defined(flow)
    assert flow.output.shape == (2, classes) and torch.equal(flow.target, flow.output.argmax(1))
    last = explainer(x, classes - 1)
    assert torch.equal(last.score, last.output[:, -1])
    words = "the model has one output, class 0" if classes == 1 else "wanted 0 to 20999"
    with pytest.raises(nf.NaflowError, match=words):
        explainer(x, classes)


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(nf.NaflowError, match=r"images: got no image"):
        nf.compile(small(), photos())(photos(2)[:0])


# Batches.


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_batches_of_any_size_within_a_tolerance(dtype: torch.dtype, tolerance: float) -> None:
    x = photos(7).to(dtype)
    explainer = nf.compile(small().to(dtype), x[:1], inverse=nf.Inverse(precision="float32"))
    whole = explainer(x)
    for size in (1, 2, 3):
        part = explainer(x[:size])
        for name, value in part.maps.items():
            for found, wanted in zip(value, whole.maps[name], strict=False):
                scale = wanted.abs().max().clamp_min(1e-30)
                assert ((found - wanted).abs().max() / scale) < tolerance, name


# Slopes near 0.


def slanted(activation: Callable[[], nn.Module]) -> nn.Module:
    """Three convolutions with batch norm whose statistics were moved by images, in eval mode."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs in (3, 8, 8):
        conv = nn.Conv2d(inputs, 8, 3, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(8), activation()]
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    model = nn.Sequential(*layers, *head).double()
    with torch.no_grad():
        model(torch.randn(32, 3, 12, 12, dtype=torch.float64))
    return model.eval()


@pytest.mark.parametrize("slope", [0.01, 0.001])
@pytest.mark.parametrize("kind", [nn.LeakyReLU, lambda slope: nn.PReLU(init=slope)])
def test_negative_values_are_not_divided_by_a_small_slope(kind: Any, slope: float) -> None:
    """At an activation's own site, its norm's and its convolution's: about as where a ReLU stands.

    Not quite: of what a ReLU cut, only a bound counts.
    """
    x = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(1)).double()
    flow, cut = (nf.compile(model, x)(x) for model in (
        slanted(lambda: kind(slope)), slanted(nn.ReLU)))  # fmt: skip
    assert list(flow.maps) == list(cut.maps)
    for site, ratio in flow.norm_ratio.items():
        assert (ratio < 2 * cut.norm_ratio[site]).all(), site
        assert (flow.residual[site] < cut.residual[site] + 0.4).all(), site


def test_dividing_by_a_small_slope_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    undamped = replace(TABLE.rules["leaky_relu"], inverse=lambda z, gate: z / gate)
    monkeypatch.setitem(TABLE.rules, "leaky_relu", undamped)
    with pytest.raises(AssertionError):
        test_negative_values_are_not_divided_by_a_small_slope(nn.LeakyReLU, 0.01)
