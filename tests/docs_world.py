"""What the pages of docs/ take for granted: files in a reader's folder, names, smaller sizes."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import naflow_fx as nf

SMALLER = {  # what pages print -> what tests run
    "torch.randn(4, 3, 224, 224)": "torch.randn(2, 3, 64, 64)",
    'device="cuda"': 'device="cpu"',
    "batch_size=64, part_size=256": "batch_size=2, part_size=2",
    "target=similarity)    # needs": "target=similarity, layers='head*')  # needs",
}
NETS = """
from torch import nn

class Crack(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 6, 5, 2), nn.Linear(6, 3)

    def forward(self, x):
        return self.fc(self.conv(x).relu().mean((2, 3)))
"""
CRACK = """
model = "nets.py:Crack"
weights = "crack.pt"
classes = "names.txt"
size = 96
mean = [0.5]
std = [0.25]
channels = 1
"""


def furnish(place: Path, root: Path) -> None:
    """Writes photos, a network with its checkpoint and classes, and a subject's file."""
    (place / "examples").symlink_to(root / "examples")
    (place / "nets.py").write_text(NETS)
    (place / "crack.toml").write_text(CRACK)
    (place / "names.txt").write_text("sound\ncrack\nspall\n")
    torch.manual_seed(0)
    torch.save(nf.subject("nets.py:Crack").build().state_dict(), place / "crack.pt")
    with Image.open(root / "examples" / "coffee.png") as photo:
        photo.save(place / "wall.jpg")
        for folder in ("photos", "imagenet/val/cups"):
            (place / folder).mkdir(parents=True)
            for name in ("a", "b"):
                photo.save(place / folder / f"{name}.png")


def names_of(model: nn.Module) -> dict[str, Any]:
    """Names that a page may use without making them: `model`, `images` and what comes of them."""
    torch.manual_seed(0)
    images = torch.randn(2, 3, 64, 64)
    explainer = nf.compile(model, images[:1], layers=["layer3", "layer4"])
    flow = explainer(images)
    return {
        "__name__": "docs", "torch": torch, "nf": nf, "model": model, "images": images,
        "explainer": explainer, "flow": flow, "other": flow, "tables": [flow.statistics()],
        "flow_a": flow, "flow_b": flow, "explainer_a": explainer, "explainer_b": explainer,
        "names": [str(i) for i in range(1000)], "photos": ["one", "two"],
        "loader": DataLoader(TensorDataset(images, torch.tensor([0, 1])), batch_size=2),
    }  # fmt: skip


def results(_: pytest.MonkeyPatch) -> None:
    """The folder of a batch run."""
    nf.explain_dataset(nf.subject("crack.toml"), "photos", "results")


def lightning_stub(patch: pytest.MonkeyPatch) -> None:
    """Stands in for Lightning, which no extra installs: what the page asks of it, no more."""
    logger = types.ModuleType("lightning.pytorch.loggers")
    logger.TensorBoardLogger = Logger  # type: ignore[attr-defined]
    stub = types.ModuleType("lightning")
    stub.LightningModule, stub.Trainer = Module, Trainer  # type: ignore[attr-defined]
    for name, module in {"lightning": stub, "lightning.pytorch": types.ModuleType("pytorch"),
                         "lightning.pytorch.loggers": logger}.items():  # fmt: skip
        patch.setitem(sys.modules, name, module)


class Module(nn.Module):
    """lightning.LightningModule."""

    device, global_step = torch.device("cpu"), 0

    def __init__(self) -> None:
        super().__init__()
        self.logger: Logger | None = None
        self.logged: dict[str, float] = {}

    def log(self, name: str, value: Any) -> None:
        self.logged[name] = float(value)


class Logger:
    """TensorBoardLogger: its experiment takes what SummaryWriter.add_images takes."""

    def __init__(self, folder: str) -> None:
        self.experiment, self.pictures = self, dict[str, tuple[int, ...]]()

    def add_images(self, name: str, pictures: Any, step: int, dataformats: str) -> None:
        assert dataformats == "NHWC" and pictures.shape[-1] == 3
        self.pictures[name] = pictures.shape


class Trainer:
    """lightning.Trainer: trains, and validates in eval and inference mode, as the real one does."""

    def __init__(self, max_epochs: int, logger: Logger, **_: Any) -> None:
        self.epochs, self.logger = max_epochs, logger

    def fit(self, module: Any, training: Any, validation: Any) -> None:
        module.logger, optimiser = self.logger, module.configure_optimizers()
        for _ in range(self.epochs):
            _each(module.train().training_step, training, optimiser)
            with torch.inference_mode():
                _each(module.eval().validation_step, validation)
        assert set(self.logger.pictures) == {"why/layer2.1.relu_1", "why/layer4.1.relu_1"}


def _each(step: Callable[[Any, int], Tensor | None], batches: Any, optimiser: Any = None) -> None:
    for index, batch in enumerate(batches):
        loss = step(batch, index)
        if optimiser is not None and loss is not None:
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()


BEFORE = {"docs/statistics.md": results, "docs/howto/training-loop.md": lightning_stub}
