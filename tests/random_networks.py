"""CNN graphs drawn at random: branches, gates, shared modules, in-place forms, any order.

A network is a list of instructions ``(operation, a, b)``; a and b choose among what there is, so
that every list of numbers is a network, and a failing one shrinks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from shelf import fill
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.optim.swa_utils import AveragedModel

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
BATCH: dict[str, Callable[[Tensor], Tensor]] = {  # what no map can follow; the last instruction
    "batch_mean": lambda x: x - x.mean(0, keepdim=True),
    "batch_norm": lambda x: F.batch_norm(x, None, None, training=True),
    "batch_softmax": lambda x: x * x.softmax(0),
    "batch_flip": lambda x: x + x.flip(0),
    "batch_roll": lambda x: x.roll(1, 0),
    "batch_first": lambda x: x - x[:1],
    "batch_max": lambda x: x - x.max(0, keepdim=True)[0],
    "batch_sort": lambda x: x.sort(0)[0],
    "batch_cumsum": lambda x: x.cumsum(0),
    "batch_gram": lambda x: torch.einsum("nchw,mchw->nm", x, x).sum(1)[:, None, None, None] * x,
    "batch_cat": lambda x: torch.cat([x, -x])[: len(x)],
}


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
        if operation in BATCH:
            return BATCH[operation](x)
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


class Logits(NamedTuple):
    """Logits and what they were computed from."""

    logits: Tensor
    image: Tensor


@dataclass
class Output:
    """The same, as Hugging Face's models return it."""

    logits: Tensor
    image: Tensor


Score = Callable[[Any], Tensor]
HEADS: dict[str, tuple[Callable[[Tensor, Tensor], Any], Score]] = {
    "plain": (lambda y, x: y, lambda o: o[:, 1]),
    "tuple": (lambda y, x: (x, y), lambda o: o[1][:, 1]),
    "named tuple": (Logits, lambda o: o.logits[:, 1]),
    "dict": (lambda y, x: {"image": x, "logits": y}, lambda o: o["logits"][:, 1]),
    "dataclass": (Output, lambda o: o.logits[:, 1]),
    "attributes": (lambda y, x: SimpleNamespace(y=y, x=x), lambda o: o.y[:, 1]),
    "one logit": (lambda y, x: y[:, 1:2], lambda o: o[:, 0]),
    "a number": (lambda y, x: y[:, 1], lambda o: o),
}


class Headed(nn.Module):
    """A network whose answer is wrapped as `HEADS` says."""

    def __init__(self, net: RandomNetwork, head: str) -> None:
        super().__init__()
        self.net, self.head = net, HEADS[head][0]

    def forward(self, x: Tensor) -> Any:
        """The answer to images [N, 3, 8, 8]."""
        return self.head(self.net(x), x)


class Autocast(RandomNetwork):
    """With autocast inside of forward."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, CLASSES]."""
        with torch.autocast("cpu"):
            return super().forward(x)


def _doubles(module: Any, args: Any, output: Any) -> Any:
    return output * 2


TREATMENTS: dict[str, Callable[[Any], Any]] = {
    "none": lambda net: None,
    "pruned": lambda net: prune.random_unstructured(net.stem, "weight", 0.3),  # type: ignore[no-untyped-call]
    "weight norm": lambda net: parametrizations.weight_norm(net.stem),
    "orthogonal": lambda net: parametrizations.orthogonal(net.head),
    "hook that looks": lambda net: net.stem.register_forward_hook(lambda m, i, o: None),
    "hooks on gradients": lambda net: net.stem.register_full_backward_hook(lambda m, i, o: None),
    "hook that changes": lambda net: net.stem.register_forward_hook(_doubles),
}
WRAPPERS: dict[str, Callable[[nn.Module], Any]] = {
    "none": lambda model: model,
    "DataParallel": nn.DataParallel,
    "AveragedModel": AveragedModel,
    "compiled": torch.compile,
    "twice": lambda model: nn.DataParallel(torch.compile(model)),
}


def treated(program: Sequence[Instruction], treatment: str, head: str) -> nn.Module:
    """The network with seeded weights, float64, treated, under a head."""
    kind = Autocast if treatment == "autocast" else RandomNetwork
    net = fill(kind(program)).double()
    with torch.no_grad():  # so that AveragedModel can copy a pruned weight
        TREATMENTS.get(treatment, TREATMENTS["none"])(net)
    return Headed(net, head).eval()  # type: ignore[arg-type]
