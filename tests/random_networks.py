"""CNN graphs drawn at random: branches, gates, shared modules, in-place forms, any order.

A network is a list of instructions ``(operation, a, b)``; a and b choose among what there is, so
that every list of numbers is a network, and a failing one shrinks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from shelf import fill
from torch import Tensor, nn

Instruction = tuple[str, int, int]
CHANNELS, CLASSES = 4, 3


def _gate(channels: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1), nn.Sigmoid())


MODULES: dict[str, Callable[[int], nn.Module]] = {
    "conv": lambda c: nn.Conv2d(c, c, 3, padding=1),
    "conv1": lambda c: nn.Conv2d(c, c, 1, bias=False),
    "depthwise": lambda c: nn.Conv2d(c, c, 3, padding=1, groups=c),
    "dilated": lambda c: nn.Conv2d(c, c, 3, padding=2, dilation=2, padding_mode="reflect"),
    "norm": nn.BatchNorm2d,
    "gate": _gate,
    "relu6": lambda c: nn.ReLU6(),
    "leaky": lambda c: nn.LeakyReLU(0.1),
    "max": lambda c: nn.MaxPool2d(3, 1, 1),
    "avg": lambda c: nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    "silu": lambda c: nn.SiLU(),
    "dropout": lambda c: nn.Dropout(0.5),
}
OPERATIONS = (*MODULES, "relu", "relu_in_place", "again", "add", "add_in_place", "cat", "mul",
              "spatial_gate", "scale", "halve")  # fmt: skip


class RandomNetwork(nn.Module):
    """The network of a list of instructions; all activations [N, CHANNELS, 8, 8] or halved."""

    def __init__(self, program: Sequence[Instruction]) -> None:
        super().__init__()
        self.program = tuple(program)
        self.stem = nn.Conv2d(3, CHANNELS, 3, padding=1)
        made = {
            str(i): MODULES[op](CHANNELS) for i, (op, _, _) in enumerate(program) if op in MODULES
        }
        self.steps = nn.ModuleDict(made)
        self.mix = nn.ModuleDict(
            {str(i): nn.Conv2d(2 * CHANNELS, CHANNELS, 1) for i, (op, _, _) in enumerate(program)
             if op == "cat"}
        )  # fmt: skip
        self.relu = nn.ReLU()
        self.head = nn.Linear(CHANNELS, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, CLASSES] of images [N, 3, 8, 8]."""
        values = [self.relu(self.stem(x))]
        sizes = [8]
        shared: list[str] = []
        for i, (operation, a, b) in enumerate(self.program):
            at = -1 - a % min(len(values), 3)
            x, size = values[at], sizes[at]
            same = [v for v, s in zip(values, sizes, strict=True) if s == size]
            other = same[-1 - b % len(same)]
            y = self._step(str(i), operation, x, other, b, shared)
            if operation == "halve" and size > 4:
                y, size = F.max_pool2d(x, 2), size // 2
            values.append(y)
            sizes.append(size)
            if operation in ("conv", "norm", "depthwise"):
                shared.append(str(i))
        last = [v for v, s in zip(values, sizes, strict=True) if s == sizes[-1]]
        out: Tensor = self.head(self.relu(last[-1] + last[0]).mean((2, 3)))
        return out

    def _step(
        self, i: str, operation: str, x: Tensor, other: Tensor, b: int, shared: list[str]
    ) -> Any:
        if operation == "gate":
            return x * self.steps[i](x) if b % 2 else self.steps[i](x).expand_as(x) * x
        if operation in MODULES:
            return self.steps[i](x)
        if operation == "relu":
            return F.relu(x) if b % 2 else self.relu(x)
        if operation == "relu_in_place":  # of a tensor of its own: nobody else's is overwritten
            return F.relu(x * 1.5, inplace=True)
        if operation == "again":
            return self.steps[shared[b % len(shared)]](x) if shared else x + 1
        if operation == "add":
            return x + other
        if operation == "add_in_place":
            y = x * 0.5
            y += other
            return y
        if operation == "cat":
            return self.mix[i](torch.cat([x, other], 1))
        if operation == "mul":
            return x * torch.sigmoid(other)
        if operation == "spatial_gate":
            return x * torch.sigmoid(other.mean(1, keepdim=True))
        return x * 0.7 - 0.1


def network(program: Sequence[Instruction]) -> nn.Module:
    """The network with seeded weights, float64."""
    return fill(RandomNetwork(program)).double()
