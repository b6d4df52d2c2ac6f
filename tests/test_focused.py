"""method="focused" against its formula, on autograd's gradients."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from shelf import Reference, class_one, fill, hazard, hazard_images, images, relative_error
from torch import Tensor, nn

import naflow_fx as nf
from naflow_fx.evaluation.synthetic import SmallCNN
from naflow_fx.maps import focus


def case(name: str) -> tuple[nn.Module, Tensor]:
    """A network in float64 and two images."""
    if name == "small":
        return fill(SmallCNN(8)).double(), images((3, 24, 24))
    return hazard(name), hazard_images(name)


def blurred(m: Tensor) -> Tensor:
    """A Gaussian of side / 56 along both axes, number by number, renormalised at the border."""
    for axis in (1, 2):
        rows = m.unbind(axis)
        deviation = len(rows) / 56
        smooth = []
        for i in range(len(rows)):
            w = [math.exp(-0.5 * ((i - j) / deviation) ** 2) for j in range(len(rows))]
            weights = torch.tensor(w, dtype=m.dtype) / sum(w)
            smooth.append(
                torch.stack([a * row for a, row in zip(weights, rows, strict=True)]).sum(0)
            )
        m = torch.stack(smooth, axis)
    return m


def wanted(a: Tensor, g: Tensor, last: Tensor) -> Tensor:
    """The formula; `last`: the feature node's map."""
    kept = (g * a).clamp_min(0)
    end = F.interpolate(last[:, None], kept.shape[2:], mode="bilinear")[:, 0]
    gate = torch.minimum(end / end.mean((1, 2), keepdim=True), torch.ones_like(end)) ** 4
    return blurred(kept.sum(1)) * gate


@pytest.mark.parametrize("name", ["small", "inception", "dense_block", "spatial_gate"])
def test_every_map_is_the_formula_and_needs_no_inverse(name: str) -> None:
    model, x = case(name)
    known = Reference(model, x)
    gradients = known.gradients(class_one)
    flow = nf.compile(model, x, target=class_one, method="focused")(x)
    last = list(flow.maps)[-1]
    end = (gradients[last] * known.values[last]).clamp_min(0).sum(1)
    checked = 0
    for site, found in flow.maps.items():
        a, g = known.values[site].detach(), gradients[site]
        right = wanted(a, g, end.detach())
        assert relative_error(found, right) < 1e-9, site
        checked += bool(right.any())
    assert checked > 0.8 * len(flow.maps)
    assert not flow.residual and not flow.norm_ratio and not flow.bpfm


def test_classes_have_maps_of_their_own_and_images_do_not_mix() -> None:
    model, x = case("small")
    explainer = nf.compile(model, x[:1], method="focused", layers=["1.*", "2.*"])
    first, second = explainer(x, target=1), explainer(x, target=2)
    alone = explainer(x[1:], target=1)
    for site in explainer.layers:
        assert relative_error(first.maps[site], second.maps[site]) > 0.05, site
        torch.testing.assert_close(first.maps[site][1:], alone.maps[site], rtol=1e-7, atol=1e-12)


@pytest.mark.slow
def test_it_is_compiled_whole_and_exported_with_a_free_batch() -> None:
    model, x = case("small")
    explainer = nf.compile(model, x, layers="2.*", method="focused")
    targets = torch.tensor([1, 0, 1])
    three = images(tuple(x.shape[1:]), 3)
    plain = explainer.graph_module(three, targets)["maps"]
    whole = torch.compile(explainer.graph_module, fullgraph=True, backend="eager")
    batch = torch.export.Dim("batch", min=1, max=64)
    shapes = ({0: batch}, {0: batch})
    program = torch.export.export(
        explainer.graph_module, (x, targets[:2]), dynamic_shapes=shapes, strict=False
    )
    for other in (whole(three, targets)["maps"], program.module()(three, targets)["maps"]):
        for site, m in plain.items():
            torch.testing.assert_close(other[site], m, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rank", [1, 3])
def test_one_and_three_space_axes(rank: int) -> None:
    conv: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    pool: Any = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[rank - 1]
    torch.manual_seed(0)
    body = [conv(2, 4, 3, padding=1), nn.ReLU(), conv(4, 6, 3, stride=2), nn.ReLU()]
    model = nn.Sequential(*body, pool(1), nn.Flatten(), nn.Linear(6, 3)).double()
    x = images((2, *(9, 8, 10)[:rank]))
    flow = nf.compile(model, x, method="focused")(x, target=1)
    assert {site: m.dim() for site, m in flow.maps.items()} == dict.fromkeys(flow.maps, rank + 1)
    assert all(m.isfinite().all() and (m >= 0).all() for m in flow.maps.values())
    assert all(m.any() for m in flow.maps.values())


def test_the_gate_takes_away_and_never_adds() -> None:
    importance, x, other = (images((4, 6, 6), 3, torch.float64) + i for i in range(3))
    last = other.relu().sum(1)
    full = focus.focused(importance, x, (), 1)
    torch.testing.assert_close(full, focus.smooth(focus.focus_map(importance, x, 1)))
    gated = focus.focused(importance, x, (last,), 1)
    assert (gated <= full + 1e-12).all() and (gated < full - 1e-3).any()
    above = last >= last.mean((1, 2), keepdim=True)
    torch.testing.assert_close(gated[above], full[above])
    dark = focus.focused(importance, x, (torch.zeros_like(last),), 1)
    torch.testing.assert_close(dark, full)


def test_smoothing_keeps_a_constant_and_sizes_are_means_or_lines() -> None:
    flat = torch.full((1, 28, 56), 3.0, dtype=torch.float64)
    torch.testing.assert_close(focus.smooth(flat), flat)
    small = torch.tensor([[[0.0, 4.0], [8.0, 12.0]]])
    assert focus.at_size(small, (1, 1)).item() == 6
    assert focus.at_size(small, (2, 2)) is small
    assert focus.at_size(small, (4, 4)).amax() == 12
    half = focus.focused(*(small[:, None].half(),) * 2, (small,), 1)
    assert half.dtype == torch.float16 and half.isfinite().all()
