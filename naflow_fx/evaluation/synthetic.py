"""Pictures whose evidence is known at the pixel, and a small CNN that learns to read it.

Each picture shows one striped, chequered or dotted shape on a cluttered background of flat and
noisy shapes.  The pattern alone decides the class: colours, kind of shape, size, place and phase
are drawn from the same distributions for all classes, and the background knows nothing of it.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.errors import EvaluationError, check_positive
from naflow_fx.evaluation.data import EvaluationSet

PATTERNS = ("vertical", "rising", "horizontal", "falling", "chequers", "dots")
SIZE = 48
CLUTTER = 8


def synthetic(count: int = 32, seed: int = 1) -> EvaluationSet:
    """`count` pictures [count, 3, 48, 48] in about 0 ± 1, with the mask of the deciding shape.

    The same seed gives the same pictures.  Training uses seeds from 1000 on.  EvaluationError: the
    count is no whole number, or below 1.
    """
    check_positive(EvaluationError, "synthetic", count=count)
    images, target, mask = draw(count, seed)
    names = tuple(f"{PATTERNS[t]}, {i}" for i, t in enumerate(target.tolist()))
    return EvaluationSet(images, target, mask, names, torch.arange(count), "synthetic")


def draw(
    count: int, seed: int, size: int = SIZE, faded: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures [count, 3, size, size], classes int64 [count], masks bool [count, size, size].

    faded: backgrounds of any contrast down to none, for training: the network then knows the
    shape on a plain ground, too, and what is asked of it when parts are covered is no surprise.
    """
    generator = torch.Generator().manual_seed(seed)
    random = functools.partial(torch.rand, generator=generator)
    coarse = random(count, 3, 6, 6) - 0.5
    picture = F.interpolate(coarse, (size, size), mode="bicubic", align_corners=False)
    for i in range(CLUTTER):
        mask, _ = _shape(count, size, random, largest=0.25)
        fill = random(count, 3, 1, 1) - 0.5
        if i % 2:  # every other one is filled with noise
            fill = fill + 0.8 * (random(count, 1, size, size) - 0.5)
        picture = torch.where(mask[:, None], fill, picture)
    if faded:
        picture = picture * random(count, 1, 1, 1)
    target = torch.arange(count) % len(PATTERNS)
    mask, (x, y) = _shape(count, size, random)
    pattern = _pattern(target, x, y, random(2, count, 1, 1) * 6)
    dark = 0.5 * random(count, 3, 1, 1) - 0.6
    light = 0.5 * random(count, 3, 1, 1) + 0.1  # 0.7 more on average
    picture = torch.where(mask[:, None], torch.where(pattern[:, None], light, dark), picture)
    noise = 0.05 * torch.randn(picture.shape, generator=generator)
    return 2 * (picture + noise), target, mask


def _shape(count: int, size: int, random: Any, largest: float = 0.26) -> tuple[Tensor, Any]:
    """Discs, squares and diamonds: masks bool [count, size, size], and pixel coordinates."""
    radius = size * (0.15 + (largest - 0.15) * random(count, 1, 1))
    centre = radius + (size - 2 * radius) * random(2, count, 1, 1)
    axis = torch.arange(size) + 0.5
    x, y = axis[None, None, :].expand(count, size, size), axis[None, :, None]
    right, down = (x - centre[0]).abs(), (y - centre[1]).abs()
    distances = torch.stack([(right**2 + down**2).sqrt(), torch.maximum(right, down),
                             (right + down) * 0.8])  # fmt: skip
    kind = (random(count) * 3).long()
    return distances[kind, torch.arange(count)] < radius, (x, y.expand(count, size, size))


def _pattern(target: Tensor, x: Tensor, y: Tensor, phase: Tensor) -> Tensor:
    """Light or dark, bool [count, H, W]: the pattern of each class, of six pixels' period."""
    wave = 2 * math.pi / 6
    x, y = (x + phase[0]) * wave, (y + phase[1]) * wave
    diagonal = math.sqrt(0.5)
    waves = [x.sin(), ((x + y) * diagonal).sin(), y.sin(), ((x - y) * diagonal).sin(),
             x.sin() * y.sin(), x.sin() + y.sin() - 0.8]  # fmt: skip
    return torch.stack(waves)[target, torch.arange(len(target))] > 0


class Block(nn.Module):
    """A residual block of two convolutions that halves the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.down = nn.Conv2d(inputs, outputs, 1, stride=2)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] -> [N, outputs, H / 2, W / 2]."""
        inner = self.relu(self.bn1(self.conv1(x)))
        result: Tensor = self.relu(self.bn2(self.conv2(inner)) + self.down(x))
        return result


class SmallCNN(nn.Sequential):
    """Stem, three residual blocks, mean, linear: [N, 3, 48, 48] -> [N, 6]."""

    def __init__(self, width: int = 16) -> None:
        w = width
        super().__init__(
            nn.Sequential(nn.Conv2d(3, w, 3, padding=1), nn.BatchNorm2d(w), nn.ReLU()),
            Block(w, 2 * w),
            Block(2 * w, 3 * w),
            Block(3 * w, 4 * w),
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * w, len(PATTERNS))),
        )


def train(steps: int = 120, batch: int = 32, seed: int = 0, shuffled: bool = False) -> SmallCNN:
    """The small CNN, trained on new pictures at each step; the same seed gives the same network.

    Args:
        steps: of Adam, one cycle of the learning rate.
        batch: pictures a step.
        seed: of the initial weights and the pictures.
        shuffled: labels drawn at random, the same for a picture each time it is seen: there is
            nothing to read in them.  One set of `4 * batch` pictures is learnt by heart.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SmallCNN()
        labels = torch.randint(len(PATTERNS), (4, batch))
    rate = torch.optim.Adam(network.parameters(), lr=1e-3)
    cycle = torch.optim.lr_scheduler.OneCycleLR(rate, 1e-2, total_steps=steps)
    for step in range(steps):
        part = step % 4 if shuffled else step
        images, target, _ = draw(batch, 1000 + seed * 100_000 + part, faded=True)
        loss = F.cross_entropy(network(images), labels[part] if shuffled else target)
        rate.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        rate.step()
        cycle.step()
    return network.eval()


@functools.cache
def trained(shuffled: bool = False) -> SmallCNN:
    """`train()`, once a process."""
    return train(shuffled=shuffled)
