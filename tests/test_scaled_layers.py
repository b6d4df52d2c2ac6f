"""A layer without bias, times a number, in any spelling: Z equals the dense oracle's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from shelf import fill, images
from test_inverse_oracle import TOLERANCE, Flow, compare
from torch import Tensor, nn

SCALES: dict[str, Callable[[Tensor], Tensor]] = {
    "y * 0.1": lambda y: y * 0.1,
    "10 * y": lambda y: 10 * y,
    "y / 4": lambda y: y / 4,
    "-y": lambda y: -y,
    "y.div(3)": lambda y: y.div(3),
    "distance": lambda y: 1.5 - 2 * y,
    "twice": lambda y: 0.5 * (y * 3),
    "zero": lambda y: torch.cat([y * 0.0, y], 1),
}


class ChannelsLast(nn.Linear):
    """A linear layer over the channels of [N, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "conv": (lambda: nn.Conv2d(4, 3, 3, padding=1, bias=False), (6, 6)),
    "depthwise": (lambda: nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False), (6, 6)),
    "grouped": (lambda: nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False), (6, 6)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 3, 2, 2, bias=False), (4, 4)),
    "linear": (lambda: ChannelsLast(4, 3, bias=False), (6, 6)),
    "1-d": (lambda: nn.Conv1d(4, 3, 3, padding=1, bias=False), (12,)),
    "3-d": (lambda: nn.Conv3d(4, 3, 3, padding=1, bias=False), (3, 4, 4)),
    "with a bias": (lambda: nn.Conv2d(4, 3, 3, padding=1), (6, 6)),
}


class Scaled(nn.Module):
    """Stem, ReLU, the layer, its scale, ReLU, mean, linear."""

    def __init__(self, layer: str, scale: str) -> None:
        super().__init__()
        make, size = LAYERS[layer]
        kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(size) - 1]
        self.stem, self.layer, self.scale = kind(2, 4, 1), make(), SCALES[scale]
        self.head = nn.LazyLinear(3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.scale(self.layer(self.stem(x).relu())).relu()
        found: Tensor = self.head(y.flatten(2).mean(2))
        return found


def check(layer: str, scale: str) -> None:
    model, x = Scaled(layer, scale), images((2, *LAYERS[layer][1]), 1)
    model(x.float())
    kinds = compare(Flow(fill(model).double(), x), TOLERANCE)
    assert "stem" in kinds and len(kinds) >= 4


@pytest.mark.parametrize("scale", SCALES)
def test_scales(scale: str) -> None:
    check("conv", scale)


@pytest.mark.parametrize("scale", ["y * 0.1", "y / 4", "-y"])
@pytest.mark.parametrize("layer", [name for name in LAYERS if name != "conv"])
def test_layers(layer: str, scale: str) -> None:
    check(layer, scale)
