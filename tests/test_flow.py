"""AttentionFlow: values of its maps, their sizes and scales, and the pictures made of them."""

from __future__ import annotations

import copy
import math
import pickle
from collections import OrderedDict
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import naflow_fx as nf
from naflow_fx.errors import FlowError
from naflow_fx.flow import AttentionFlow, top5
from naflow_fx.view.colours import colour_table

NAMES = ("conv1", "layer1.0.relu_1", "layer1/odd name", "fc")


def make_flow(count: int = 2, dtype: torch.dtype = torch.float32, **changes: Any) -> AttentionFlow:
    torch.manual_seed(0)
    shapes = [(16, 12), (8, 6), (4, 3), ()]
    maps = OrderedDict(
        (name, torch.rand(count, *shape).to(dtype) * 10**i)
        for i, (name, shape) in enumerate(zip(NAMES, shapes, strict=True))
    )
    values: dict[str, Any] = {
        "maps": maps,
        "output": torch.randn(count, 10),
        "score": torch.arange(count) + 0.5,
        "target": torch.arange(count) + 3,
        "residual": {name: torch.rand(count) for name in NAMES},
        "norm_ratio": {name: torch.rand(count) for name in NAMES},
        "bpfm": {"conv1": torch.rand(count, 4, 16, 12)},
        "input_size": (32, 24),
        "options": {"method": "naflow", "inverse": {"damping": 0.1, "steps": 5}, "layers": ["*"]},
    }
    return AttentionFlow(**{**values, **changes})


def photos(count: int = 2, size: tuple[int, int] = (64, 48)) -> Any:
    return np.random.default_rng(0).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def test_repr_is_one_short_line() -> None:
    text = repr(make_flow(5))
    assert text == (
        "AttentionFlow(images=5, layers=4, maps 16x12 to 1, target=[3, 4, 5, ...], "
        "score=[0.5, 1.5, 2.5, ...])"
    )
    assert "callable" in repr(make_flow(target=None))


def test_one_image_of_a_flow() -> None:
    flow = make_flow(3, output={"logits": torch.randn(3, 10), "extra": ("text", torch.ones(7))})
    one = flow[1]
    assert len(one) == 1 and one.input_size == flow.input_size and one.options == flow.options
    assert one.target is not None and one.target.tolist() == [4]
    for name in NAMES:
        assert torch.equal(one.maps[name], flow.maps[name][1:2])
        assert torch.equal(one.residual[name], flow.residual[name][1:2])
    assert torch.equal(one.bpfm["conv1"], flow.bpfm["conv1"][1:2])
    assert torch.equal(one.output["logits"], flow.output["logits"][1:2])
    assert one.output["extra"][0] == "text" and one.output["extra"][1].shape == (7,)
    assert torch.equal(flow[-1].score, flow.score[2:]) and len(flow[1:]) == 2
    assert [float(f.score) for f in flow] == [0.5, 1.5, 2.5]
    assert list(one.maps) == list(NAMES) and isinstance(one.maps, OrderedDict)
    number: Any = np.int64(2)  # numpy's numbers are no int
    assert torch.equal(flow[number].score, flow.score[2:]) and len(flow[number]) == 1
    with pytest.raises(IndexError, match="No image 3 in a flow of 3"):
        flow[3]


def test_moving_and_detaching() -> None:
    flow = make_flow(score=torch.ones(2, requires_grad=True) * 2)
    assert flow.score.requires_grad and not flow.detach().score.requires_grad
    assert flow.to("meta").maps["conv1"].device.type == "meta"
    assert torch.equal(pickle.loads(pickle.dumps(flow.detach())).maps["fc"], flow.maps["fc"])
    changed = flow.cpu()
    changed.options["method"] = "other"
    assert flow.options["method"] == "naflow"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_normalised_per_map(dtype: torch.dtype) -> None:
    flow = make_flow(dtype=dtype)
    flow.maps["conv1"][0, 0, 0] = -5
    for name, m in flow.normalised().items():
        assert m.dtype == dtype and m.shape == flow.maps[name].shape
        assert m.flatten(1 if m.ndim > 1 else 0).amax(-1).float().allclose(torch.ones(1))
        assert m.min() >= 0
    wanted = flow.maps["conv1"][1] / flow.maps["conv1"][1].max()
    torch.testing.assert_close(flow.normalised()["conv1"][1], wanted)


def test_normalised_with_one_scale_a_sample() -> None:
    flow = make_flow()
    shared = flow.normalised("shared")
    for i in range(2):
        largest = max(float(m[i].max()) for m in flow.maps.values())
        assert max(float(m[i].max()) for m in shared.values()) == pytest.approx(1)
        torch.testing.assert_close(shared["conv1"][i], flow.maps["conv1"][i] / largest)


def test_normalised_does_not_blow_up_nothing() -> None:
    maps = OrderedDict(
        big=torch.full((1, 2, 2), 3.0),
        noise=torch.full((1, 2, 2), 3e-12),
        zero=torch.zeros(1, 2, 2),
    )
    flow = make_flow(1, maps=maps)
    got = flow.normalised()
    assert got["zero"].eq(0).all() and got["noise"].max() < 1e-4 and got["big"].eq(1).all()
    tiny = make_flow(1, maps=OrderedDict((k, v * 1e-20) for k, v in maps.items())).normalised()
    assert tiny["big"].eq(1).all()  # the scale of the score does not matter
    assert make_flow(1, maps=OrderedDict()).normalised() == OrderedDict()
    with pytest.raises(FlowError, match="scale='all'.: wanted one of 'map', 'shared'"):
        flow.normalised("all")  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [None, 50, (40, 30), [7, 9]])
def test_upsampled_is_bilinear(size: Any) -> None:
    flow = make_flow()
    wanted_size = {None: (32, 24), 50: (50, 50)}.get(size if not isinstance(size, list) else -1)
    shape = wanted_size or tuple(size)
    got = flow.upsampled(size)
    assert list(got) == list(NAMES) and all(m.shape == (2, *shape) for m in got.values())
    wanted = F.interpolate(
        flow.maps["conv1"][:, None], size=shape, mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(got["conv1"], wanted[:, 0])
    assert got["fc"].eq(flow.maps["fc"][:, None, None]).all()


@pytest.mark.parametrize(("input_size", "mode"), [((20,), "linear"), ((8, 6, 4), "trilinear")])
def test_upsampled_in_one_and_three_dimensions(input_size: tuple[int, ...], mode: str) -> None:
    maps = torch.rand(2, *[n // 2 for n in input_size])
    flow = make_flow(maps=OrderedDict(conv=maps), input_size=input_size)
    wanted = F.interpolate(maps[:, None], size=input_size, mode=mode, align_corners=False)[:, 0]
    torch.testing.assert_close(flow.upsampled()["conv"], wanted)
    with pytest.raises(FlowError, match="2-d maps only"):
        flow.overlay(photos())


@pytest.mark.parametrize("size", [0, (4,), (4, 4, 4), (4, 2.5)])
def test_upsampled_refuses_sizes(size: Any) -> None:
    with pytest.raises(FlowError, match="2 positive integers"):
        make_flow().upsampled(size)


def test_overlay_mixes_photo_and_colours() -> None:
    flow, images = make_flow(), photos()
    got = flow.overlay(images, alpha=1, colormap="viridis")
    assert list(got) == list(NAMES)
    one = flow.normalised()["conv1"][:, None]
    up = F.interpolate(one, size=(64, 48), mode="bicubic", antialias=True)[:, 0].clamp(0, 1)
    for name, picture in got.items():
        assert picture.shape == (2, 64, 48, 3) and picture.dtype == np.uint8, name
    wanted = colour_table("viridis")[(up.numpy() * 255).round().astype(int)].astype(int)
    assert np.abs(got["conv1"].astype(int) - wanted).max() <= 4  # one step of the colour table
    assert (got["fc"] == colour_table("viridis")[255]).all()
    np.testing.assert_array_equal(flow.overlay(images, alpha=0)["conv1"], images)


def test_overlay_takes_every_form_of_images() -> None:
    flow, images = make_flow(), photos()
    wanted = flow.overlay(images)["conv1"]
    for form in (
        list(images),
        [Image.fromarray(image) for image in images],
        torch.from_numpy(images),
        torch.from_numpy(images).permute(0, 3, 1, 2),
    ):
        np.testing.assert_array_equal(flow.overlay(form)["conv1"], wanted)
    one = flow[0].overlay(Image.fromarray(images[0]))["conv1"]
    np.testing.assert_array_equal(one, wanted[:1])


def test_network_input_is_stretched_per_image() -> None:
    flow = make_flow()
    ramp = (
        torch.linspace(-2, 3, 24).expand(2, 3, 32, 24) * torch.tensor([1, 10])[:, None, None, None]
    )
    got = flow.overlay(ramp.requires_grad_(), alpha=0)["conv1"]
    assert got.shape == (2, 32, 24, 3)
    assert (got[..., 0, :] == 0).all() and (got[..., -1, :] == 255).all()
    np.testing.assert_array_equal(got[0], got[1])
    assert flow.overlay(torch.zeros(2, 1, 32, 24), alpha=0)["fc"].max() == 0  # flat, not NaN


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (photos(3), "3 images for 2 samples"),
        ([photos(1)[0], photos(1, (8, 8))[0]], r"differ in size \(64x48, 8x8\)"),
        (torch.zeros(2, 4, 8, 8), "float32"),
        (np.zeros((2, 8, 8, 3), np.int32), "int32"),
        ("photo.png", "can't be str"),
        (torch.zeros(8, 8), r"float32 \(8, 8\)"),
        (torch.full((2, 3, 8, 8), math.nan), "not finite"),
    ],
)
def test_overlay_refuses(images: Any, words: str) -> None:
    with pytest.raises(FlowError, match=words):
        make_flow().overlay(images)


def test_maps_that_are_not_finite_are_all_named() -> None:
    flow = make_flow()
    flow.maps["conv1"][1, 0, 0] = math.nan
    flow.maps["fc"][0] = math.inf
    with pytest.raises(FlowError, match="not finite: conv1, fc. Compute them in float32"):
        flow.overlay(photos())


def test_a_flow_of_no_image_has_no_pictures() -> None:
    flow = make_flow()[2:]
    for show in (flow.overlay, partial(flow.plot, kind="strip"), partial(flow.save_gif, "x.gif")):
        with pytest.raises(FlowError, match="of no image"):
            show(images=photos(2)[2:])


def test_top5_are_softmax_probabilities() -> None:
    output = torch.randn(3, 9, dtype=torch.float64)
    for row, scores in zip(top5(output), output, strict=True):
        shares = scores.softmax(0)
        assert [c for c, _ in row] == shares.argsort(descending=True)[:5].tolist()
        assert [p for _, p in row] == pytest.approx([float(shares[c]) for c, _ in row])
    assert [len(row) for row in top5(torch.randn(2, 3))] == [3, 3]
    assert make_flow().top5(1)[0][0][0] == int(make_flow().output[0].argmax())
    for wrong in (torch.randn(3), {"a": 1}, torch.ones(2, 3, dtype=torch.int64)):
        with pytest.raises(FlowError, match="class scores"):
            top5(wrong)


def test_a_site_that_there_is_not_is_told_in_words() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    flow = nf.compile(model, torch.rand(2, 3, 6, 6))(torch.rand(2, 3, 6, 6))
    others = copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))
    for moved in (flow, flow[0], flow.detach(), *others):
        with pytest.raises(nf.NaflowError, match="flow.maps has no call site 'inputs'; near"):
            moved.maps["inputs"]
        with pytest.raises(KeyError, match="flow.residual has no call site 'x'; near: input"):
            moved.residual["x"]
        with pytest.raises(FlowError, match='nothing is kept .* keep="bpfm"'):
            moved.bpfm["0"]
        assert moved.maps.get("inputs") is None and "inputs" not in moved.maps
        assert isinstance(moved.maps, OrderedDict) and list(moved.maps) == ["input", "0", "1"]
