"""Symbolic tracing and torch.export give the same maps, and the same names where they can."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from against_hooks import largest_error
from shelf import HAZARDS, class_one, fill, hazard, hazard_images, images, relative_error, score_of
from torch import Tensor, nn

import naflow_fx as nf
from naflow_fx.errors import TraceError

# torch.export writes a module's own padding as a node before it, which is then inverted by itself.
SEPARATE_PADS = {"padding_modes"}
# It drops identities, and names what a parametrised module calls after the function.
OTHER_NAMES = {
    "overwritten_copy", "dropout", "parametrised", "functional", "in_place_methods",
} | SEPARATE_PADS  # fmt: skip


def exported(model: nn.Module, x: Tensor) -> torch.export.ExportedProgram:
    return torch.export.export(model.eval(), (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},))


@pytest.mark.parametrize("name", sorted(set(HAZARDS) - SEPARATE_PADS))
def test_same_maps(name: str) -> None:
    model, x, target = hazard(name).eval(), hazard_images(name), score_of(name)
    traced = nf.compile(model, x, target=target)
    export = nf.compile(exported(model, x), x, target=target)
    flow, other = traced(x), export(x)
    torch.testing.assert_close(other.score, flow.score)
    if name not in OTHER_NAMES:
        assert export.layers == traced.layers
    common = [site for site in flow.maps if site in other.maps]
    assert len(common) >= len(flow.maps) - 3
    for site in common:
        if flow.maps[site].any():
            assert relative_error(other.maps[site], flow.maps[site]) < 1e-6, site


def test_there_are_twenty_networks() -> None:
    assert len(set(HAZARDS) - SEPARATE_PADS) >= 20


class ShapeUnpacking(nn.Module):
    """What symbolic tracing refuses and torch.export takes: unpacked shapes, asserts on them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        n, channels, _, _ = x.shape
        assert channels == 3
        out: Tensor = self.head(torch.relu(self.conv(x)).mean((2, 3)).view(n, 6))
        return out


class AsksForTensors(nn.Module):
    """No traced value is a Tensor: symbolic tracing takes the other branch, which doesn't run."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.mix = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(9, 6, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Any:
        y = self.conv(x)
        if isinstance(x, Tensor):
            y = torch.cat([x, y], 1)
        return self.head(torch.relu(self.mix(y)).mean((2, 3)))


class KeepsWhatItConverts(AsksForTensors):
    """A constant that forward converts and keeps: while it is traced, it keeps a traced value."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)

    def forward(self, x: Tensor) -> Any:
        self.mean = self.mean.to(x.dtype)
        y = x - self.mean
        return self.head(torch.relu(self.mix(torch.cat([y, self.conv(y)], 1))).mean((2, 3)))


def test_what_forward_keeps_of_a_call_is_no_constant() -> None:
    model, x = fill(KeepsWhatItConverts()).double(), images((3, 12, 12))
    error, sites = largest_error(model, x, class_one)
    assert error < 1e-12 and {"conv", "mix"} <= set(sites)


def test_export_takes_over_where_the_traced_graph_does_not_run() -> None:
    model, x = fill(AsksForTensors()).double(), images((3, 12, 12))
    error, sites = largest_error(model, x, class_one)
    assert error < 1e-12 and {"conv", "mix"} <= set(sites)


def test_export_takes_over_where_symbolic_tracing_fails() -> None:
    model, x = fill(ShapeUnpacking()).double(), images((3, 12, 12))
    explainer = nf.compile(model, x)
    assert explainer.layers == ["x", "conv", "relu"]
    torch.testing.assert_close(explainer(x[:1]).output, model(x[:1]).detach())


class Block(nn.Module):
    """Layers in containers, an activation that all share; symbolic tracing refuses it."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), activation)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == 3
        out: Tensor = self.activation(self.conv(x) + x)
        return out


def test_nested_blocks_have_their_whole_path_where_export_takes_over() -> None:
    shared, head = nn.ReLU(), (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    model = fill(nn.Sequential(nn.Sequential(Block(shared), Block(shared)), *head)).double()
    blocks = [[f"0.{i}.conv.0", f"0.{i}.conv.1", f"0.{i}.add", f"0.{i}.activation"] for i in (0, 1)]
    assert nf.compile(model, images((3, 8, 8))).layers == ["input", *blocks[0], *blocks[1]]


def test_a_forward_that_was_put_on_the_model_is_exported() -> None:
    model = fill(ShapeUnpacking()).double()
    wanted = model(images((3, 12, 12))).detach()
    model.forward = lambda x: 2 * ShapeUnpacking.forward(model, x)  # type: ignore[arg-type]
    explainer = nf.compile(model, images((3, 12, 12)))
    assert explainer.layers == ["x", "conv", "relu"]
    torch.testing.assert_close(explainer(images((3, 12, 12))).output, 2 * wanted)


class DataDependent(nn.Module):
    """What neither takes."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x


def test_both_reasons_are_shown_with_the_line() -> None:
    with pytest.raises(TraceError) as caught:
        nf.compile(DataDependent(), images((3, 12, 12)))
    lines = str(caught.value).splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["torch.fx", "torch.export"]
    assert all("test_front_ends.py:" in line for line in lines[1:3])
