"""A residual network small enough to be explained in a second, for tests of what is shown."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

import naflow_fx as nf


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.relu(self.conv2(self.relu(self.bn1(self.conv1(x)))) + x)
        return y


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.pool = nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2)
        self.layer1 = nn.Sequential(Block(), Block())
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer1(self.pool(self.stem(x).relu()))
        scores: Tensor = self.fc(x.mean((2, 3)))
        return scores


@functools.cache
def explained(
    count: int = 1, size: tuple[int, int] = (16, 20), keep: tuple[str, ...] = ()
) -> tuple[nf.Explainer, nf.AttentionFlow, Tensor]:
    """An explainer of the network, a flow of `count` images, and the images [N, 3, H, W]."""
    torch.manual_seed(0)
    images = torch.randn(count, 3, *size)
    explainer = nf.compile(Small().eval(), images[:1], keep=keep)
    return explainer, explainer(images), images
