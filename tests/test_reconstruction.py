"""AttentionFlow.reconstruction: Z as a picture, its scale, its channels, its errors."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from small_flow import Small, explained
from torch import Tensor, nn

import naflow_fx as nf
from naflow_fx.errors import FlowError
from naflow_fx.flow import AttentionFlow


def held(z: Tensor, space: int = 2, channels_last: bool = False) -> Tensor:
    """The reconstruction of a single call site's Z."""
    first = z.movedim(-1, 1) if channels_last else z
    score = torch.zeros(len(z))
    flow = AttentionFlow(
        maps=OrderedDict(a=first.sum(1)), output=score, score=score, target=None, residual={},
        norm_ratio={}, bpfm={"a": z}, input_size=(1,) * space,
    )  # fmt: skip
    return flow.reconstruction()["a"]


def test_colours_are_scaled_per_image_between_percentiles_of_all_channels() -> None:
    ramp = torch.arange(300.0)[torch.randperm(300, generator=torch.Generator().manual_seed(0))]
    z = torch.stack([ramp, 7 - 5 * ramp]).reshape(2, 3, 10, 10)
    low, high = 3.0, 296.0  # of 0 ... 299: shares 0.01 and 0.99 of the ranks
    wanted = ((ramp - low) / (high - low)).clamp(0, 1).reshape(3, 10, 10)
    found = held(z)
    assert found.shape == (2, 3, 10, 10)
    torch.testing.assert_close(found[0], wanted)
    torch.testing.assert_close(found[1], 1 - wanted)


@pytest.mark.parametrize("size", [(70,), (66, 71), (64, 65, 66)])
def test_what_repeats_every_four_pixels_is_taken_off(size: tuple[int, ...]) -> None:
    photo = torch.randn(2, 3, *size, dtype=torch.float64)
    pattern = 100 * torch.randn(1, 3, *size, dtype=torch.float64)
    small, patterned = photo, photo + pattern
    for axis in range(2, photo.dim()):
        index = torch.arange(photo.shape[axis])
        patterned = patterned - pattern + (pattern := pattern.index_select(axis, index % 4))
    found, wanted = held(patterned, len(size)), held(photo, len(size))
    torch.testing.assert_close(found, wanted)
    assert found.std() > 0.1
    for axis in range(2, photo.dim()):  # there it stays
        small, patterned = small.narrow(axis, 0, 32), patterned.narrow(axis, 0, 32)
    assert not torch.allclose(held(patterned, len(size)), held(small, len(size)), atol=0.1)


def test_many_channels_show_their_length() -> None:
    z = torch.zeros(1, 2, 1, 3)
    z[0, :, 0] = torch.tensor([[3.0, 0.0, -6.0], [4.0, 0.0, 8.0]])  # lengths 5, 0, 10
    assert held(z).tolist() == [[[[0.5, 0.0, 1.0]]]]
    last = z.movedim(1, -1)
    assert held(last, channels_last=True).tolist() == [[[[0.5, 0.0, 1.0]]]]


def test_one_channel_keeps_its_sign() -> None:
    assert held(torch.tensor([[[[-2.0, 0.0, 2.0]]]])).tolist() == [[[[0.0, 0.5, 1.0]]]]


@pytest.mark.parametrize("shape", [(2, 5, 9), (2, 5, 3, 4, 2), (2, 3, 9), (2, 5)])
def test_signals_volumes_and_sites_without_space(shape: tuple[int, ...]) -> None:
    found = held(torch.randn(shape), len(shape) - 2)
    assert found.shape == (2, 3 if shape[1] == 3 else 1, *shape[2:])
    assert found.amin() == 0
    assert found.amax() == (1 if len(shape) > 2 else 0)  # a single value: the same everywhere


def test_what_is_the_same_everywhere_is_0() -> None:
    assert not held(torch.full((1, 3, 4, 4), -2.0)).any()


def test_more_values_than_quantile_takes() -> None:
    z = torch.arange(2.0**24 + 3).reshape(1, 1, 1, -1)
    assert float(held(z)[..., z.shape[-1] // 2]) == pytest.approx(0.5, abs=1e-6)


def test_half_precision_stays_and_is_scaled_wide() -> None:
    z = torch.full((1, 2, 1, 2), 300.0, dtype=torch.float16)  # its squares overflow
    z[..., 1] = 0
    found = held(z)
    assert found.dtype == torch.float16
    assert found.tolist() == [[[[1.0, 0.0]]]]


def test_a_network_shows_every_site_and_each_image_by_itself() -> None:
    _, flow, _ = explained(count=2, keep=("bpfm",))
    found = flow.reconstruction()
    assert list(found) == list(flow.maps)
    assert found["x"].shape == (2, 3, 16, 20)
    assert found["layer1.0.conv1"].shape == (2, 1, 8, 10)
    for name, picture in found.items():
        assert 0 <= float(picture.amin()) <= float(picture.amax()) <= 1
        torch.testing.assert_close(flow[1].reconstruction()[name], picture[1:])


def test_it_is_the_same_for_every_class() -> None:
    explainer, _, images = explained(keep=("bpfm",))
    first, second = (explainer(images, target=c).reconstruction() for c in (0, 1))
    for name, picture in first.items():
        assert picture.equal(second[name])


def test_an_orthogonal_network_holds_all_of_the_photo() -> None:
    turn = nn.Conv2d(3, 3, 1, bias=False)
    with torch.no_grad():
        turn.weight.copy_(
            torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0][..., None, None]
        )
    model = nn.Sequential(turn, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)).double()
    image = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    flow = nf.compile(model, image, keep="bpfm", inverse=nf.Inverse(damping=0, steps=20))(image)
    input_site = next(iter(flow.maps))
    torch.testing.assert_close(flow.reconstruction()[input_site], held(image))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r'Z: it was not kept.*nf\.compile\(\.\.\., keep="bpfm"\)'),
        ({"method": "layercam"}, r'no part of the maps of \'layercam\'.*keep="bpfm"\)'),
    ],
)
def test_without_z_the_error_says_how_to_keep_it(options: dict[str, Any], message: str) -> None:
    image = torch.randn(1, 3, 8, 8)
    with pytest.raises(FlowError, match=message):
        nf.compile(Small().eval(), image, **options)(image).reconstruction()
    kept = nf.compile(Small().eval(), image, keep="bpfm", **options)(image)
    assert kept.reconstruction()["x"].shape == (1, 3, 8, 8)


def test_values_that_are_not_finite_are_named() -> None:
    z = torch.ones(1, 3, 2, 2)
    z[0, 1, 0, 0] = torch.nan
    with pytest.raises(FlowError, match="'a' has values that are not finite"):
        held(z)
