"""What the tests of batch runs share: a small network, small photos, comparing two runs."""

from __future__ import annotations

import importlib
import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import naflow_fx as nf
from naflow_fx.dataset import lock
from naflow_fx.dataset.sources import Source, open_source

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
KILLS = importlib.import_module("kill_test")

PHOTOS = 21
SMALL = nf.models.Preprocessing(resize=36, crop=32)


class Tiny(nn.Module):
    """Two convolutions, five classes, weights drawn from a fixed seed."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)
        draw = torch.Generator().manual_seed(0)
        for weight in self.parameters():
            weight.data = torch.randn(weight.shape, generator=draw) / weight[0].numel() ** 0.5

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.max_pool2d(self.first(x).relu(), 2)
        return self.head(self.second(y).relu().mean((2, 3)))  # type: ignore[no-any-return]


def make(device: torch.device) -> nf.Explainer:
    example = torch.zeros(1, 3, 32, 32, device=device)
    inverse = nf.Inverse(steps=2, precision="float32")
    return nf.compile(Tiny().eval().to(device), example, inverse=inverse)


def make_deadly(flag: str, device: torch.device) -> nf.Explainer:
    """An explainer whose process is killed in its fifth call; the first one that gets there."""
    explainer = make(device)
    inner, calls = explainer.forward, itertools.count(1)

    def forward(images: Tensor, target: Any = None) -> nf.AttentionFlow:
        if next(calls) == 5 and not os.path.exists(flag):
            Path(flag).touch()
            os.kill(os.getpid(), 9)
        return inner(images, target)

    explainer.forward = forward  # type: ignore[method-assign, assignment]
    return explainer


class Deadly(Source):
    """A source with a photo that kills the process that reads it."""

    def read(self, position: int) -> bytes:
        if self.ids[position] == "00005.png":
            os.kill(os.getpid(), 9)
        return super().read(position)


def deadly_source(photos: Path) -> Deadly:
    return Deadly(**vars(open_source(photos)))


def spec(**options: Any) -> nf.ExplainerSpec:
    return nf.ExplainerSpec(**{"make": make, "preprocessing": SMALL, **options})


def run(source: Any, out: Path, **options: Any) -> nf.DatasetRun:
    """A run of small batches and parts, decoded in this process, silent."""
    given = {"batch_size": 4, "part_size": 8, "workers": 0, "progress": False, **options}
    explainer = given.pop("explainer", spec())
    return nf.explain_dataset(explainer, source, out, **given)


def draw_photos(folder: Path, count: int) -> Path:
    """Photos 000.png, 001.png, ... of smooth noise."""
    KILLS.make_photos(folder, count, 0)
    return folder


def picture(seed: int = 0, size: tuple[int, int] = (48, 40)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_photos(tmp_path_factory.mktemp("source") / "photos", PHOTOS)


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    run(photos, out)
    return out


def in_another_process(call: Callable[[], Any]) -> str:
    """What a call raises in a forked process, as text; "" if nothing."""
    reader, writer = os.pipe()
    if not (child := os.fork()):
        lock._here.clear()  # what this process holds
        try:
            call()
        except BaseException as error:
            os.write(writer, str(error).encode()[:4000])
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read().decode()
    os.waitpid(child, 0)
    return text


def unlike(first: Path, second: Path) -> list[str]:
    """What differs between two folders of results, to the bit."""
    found: list[str] = KILLS.compare(first, second)[1]
    return found


if __name__ == "__main__":  # a run in a process of its own: SOURCE OUT KEY=VALUE...
    torch.set_num_threads(1)
    words = [word.split("=") for word in sys.argv[3:]]
    given = {key: int(value) if value.isdigit() else value for key, value in words}
    import dataset_tiny

    dataset_tiny.run(sys.argv[1], Path(sys.argv[2]), **given)
