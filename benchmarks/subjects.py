"""What is measured: the networks, the photos, the settings, the eager baseline, the machine."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import naflow_fx as nf
from naflow_fx import models
from naflow_fx.models.preprocess import open_photo

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # its weights, and its oracle of what maps are right
TRAINED = "efficientnet_lite0"
LARGER = "efficientnet_lite2"  # with the extra "lite"; for accuracy alone
MODELS = ("resnet18", "resnet50", TRAINED)


@dataclass(frozen=True)
class Setting:
    """One way to compile an explainer, a row of the tables."""

    name: str
    method: str = "naflow"
    reduction: str = "sum"
    rows: str = "used"
    precision: str = "auto"

    def compile(self, model: nn.Module, x: Tensor, **options: Any) -> nf.Explainer:
        """The explainer, for images of the size of x."""
        inverse = nf.Inverse(rows=self.rows, precision=self.precision)  # type: ignore[arg-type]
        chosen = {"inverse": inverse, "method": self.method, "reduction": self.reduction}
        return nf.compile(model, x[:1], **chosen | options)  # type: ignore[arg-type]


DEFAULT = Setting("naflow, the default")
FLOAT32 = Setting("naflow, float32", precision="float32")
SETTINGS = (
    FLOAT32,
    Setting("naflow, bfloat16", precision="bfloat16"),
    Setting("naflow, rows all, float32", rows="all", precision="float32"),
    Setting("naflow, channelwise, float32", reduction="channelwise", precision="float32"),
    Setting("layercam", method="layercam", precision="float32"),
)
LAYERCAM = SETTINGS[-1]


@cache
def model(name: str, device: str) -> nn.Module:
    """The trained bundled network, or a network with weights drawn from their names, in eval mode.

    Parameters require gradients, as they do where a user has just loaded a model.
    """
    if name in (TRAINED, LARGER):
        return models.build(name, pretrained=True).eval().to(device)
    import shelf  # weights such that activations stay of order one

    with torch.no_grad():
        return shelf.fill(models.build(name)).eval().to(device)


@cache
def photos(batch: int, size: int, device: str) -> Tensor:
    """The photos of examples/, preprocessed for the bundled model, [batch, 3, size, size].

    Repeated to fill the batch, every second time flipped.
    """
    preprocess = models.card(TRAINED).preprocessing
    files = sorted((ROOT / "examples").glob("*.png"))
    x = torch.stack([preprocess(open_photo(path)) for path in files])
    if size != x.shape[-1]:
        x = F.interpolate(x, size=(size, size), mode="bilinear", antialias=True)
    both = torch.cat([x, x.flip(3)])
    return both.repeat(-(-batch // len(both)), 1, 1, 1)[:batch].contiguous().to(device)


def forward_backward(net: nn.Module, x: Tensor) -> Tensor:
    """The unit of time: d (sum of the predicted classes' scores) / d x, float32, eager."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        score = net(leaf).amax(1).sum()
        return torch.autograd.grad(score, leaf)[0]


def training_step(net: nn.Module, x: Tensor) -> None:
    """The unit of memory: forward and backward to the weights, whose gradients it leaves."""
    net.train()
    net(x).amax(1).sum().backward()


def machine(device: str) -> dict[str, Any]:
    """The machine and the versions, as the report names them."""
    found = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "bfloat16 matrix units": _torch_says("_is_amx_tile_supported"),
        "AVX-512 BF16": _torch_says("_is_avx512_bf16_supported"),
    }
    if device == "cuda":
        found["accelerator"] = torch.cuda.get_device_name()
        found["TF32 in convolutions"] = torch.backends.cudnn.allow_tf32
    for name in ("torch", "torchvision", "grad-cam", "torchcam", "captum", "zennit"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def _torch_says(name: str) -> bool:
    return bool(getattr(torch.cpu, name, lambda: False)())


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
