"""The list of networks: plain lines of `networks.txt`, read and built."""

from __future__ import annotations

import importlib
import zlib
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import torch
from torch import Tensor, nn

LIST = Path(__file__).parent / "networks.txt"


@dataclass(frozen=True)
class Network:
    """One line: where the constructor is, an input's shape without the batch, the call."""

    module: str
    shape: tuple[int, ...]
    call: str

    @property
    def package(self) -> str:
        """The name that is imported."""
        return self.module.split(".")[0]

    @property
    def name(self) -> str:
        """What the table calls it, and what `--only` is matched with."""
        return f"{self.module}/{self.call}"

    def images(self) -> Tensor:
        """Two inputs, [2, C, ...space], float64, seeded."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(2, *self.shape, generator=generator, dtype=torch.float64)

    def build(self) -> nn.Module:
        """The network in eval mode and float64, its weights drawn from their names."""
        torch.manual_seed(0)
        module = importlib.import_module(self.module)
        code = compile(self.call, str(LIST), "eval")
        names = {n: getattr(module, n) for n in code.co_names if hasattr(module, n)}
        model: nn.Module = eval(code, {"torch": torch, "pooled": pooled} | names)
        return _filled(model).eval().double()


def pooled(model: nn.Module) -> nn.Module:
    """A network for one size, made for any: its last pools, of a fixed size, become global."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.AvgPool2d) and module.kernel_size in (7, 13, 14, 20, 28, 56):
            model.set_submodule(name, nn.AdaptiveAvgPool2d(1))
    return model


def networks(pattern: str = "*") -> list[Network]:
    """The list's networks whose name the glob matches, in order."""
    lines = (line for line in LIST.read_text().splitlines() if line and line[0] != "#")
    found = [_network(*line.split(None, 2)) for line in lines]
    return [n for n in found if fnmatch(n.name, pattern)]


def _network(module: str, shape: str, call: str) -> Network:
    return Network(module, tuple(map(int, shape.split("x"))), call)


def _filled(model: nn.Module) -> nn.Module:
    """Weights such that activations stay of order one and no branch is zero, as some begin."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.is_floating_point():
                weight.copy_(_drawn(name, weight))
        for name, tensor in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                tensor.copy_(_drawn(name, tensor))
    return model


def _drawn(name: str, like: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    u = (torch.rand(like.shape, generator=generator) - 0.5) * 12**0.5
    kind = name.rsplit(".", 1)[-1]
    if kind in ("running_mean", "bias"):
        return 0.1 * u
    if like.dim() < 2:
        return (1 if kind == "running_var" else 0.6) + 0.2 * u
    gain: float = ((2 if like.dim() > 2 else 1) / like[0].numel()) ** 0.5
    return u * gain
