"""A network of the user's own: its files, its weights, photos, and the maps that are right."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

import naflow_fx as nf
from naflow_fx.cli import main

NETS = """
import torch
from torch import nn
from helpers import normalisation

class Crack(nn.Module):
    def __init__(self, width=6, classes=5):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, width, 5, 2, 2), normalisation(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1), normalisation(width)
        self.pool, self.fc = nn.MaxPool2d(2), nn.Linear(width, classes)

    def forward(self, x):
        x = self.pool(torch.relu(self.bn1(self.conv1(x))))
        x = torch.relu(self.bn2(self.conv2(x)) + x)
        return self.fc(x.mean((2, 3)))

class Both(Crack):
    def forward(self, x):
        scores = super().forward(x)
        return {"logits": scores, "shares": scores.softmax(1)}

class Mask(Crack):
    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        return self.fc(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

def wide():
    return Crack(12)

def needy(width):
    return Crack(width)

def number():
    return 3

def grey(photo):
    import numpy
    pixels = torch.from_numpy(numpy.array(photo.convert("L").resize((96, 96), 2)))
    return (pixels[None].float() / 255 - 0.5) / 0.25

def of_no_use(photo):
    return photo.size
"""
NAMES = ["sound", "crack", "spall", "<b>rust</b>", "plant"]
INPUT = ["--size", "96", "--mean", "0.5", "--std", "0.25", "--channels", "1"]
CRACK = ["--model", "nets.py:Crack", "--weights", "crack.pt", "--classes", "names.txt"]
OWN = [*CRACK, *INPUT]
NUMBERS: dict[str, Any] = {"size": 96, "mean": 0.5, "std": 0.25, "channels": 1}
ALIKE = 5e-3  # between programs: the solver rounds to bfloat16 where that is faster

Maps = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the user's files, which is the current one."""
    place = tmp_path_factory.mktemp("work")
    (place / "nets.py").write_text(NETS)
    (place / "helpers.py").write_text("from torch.nn import BatchNorm2d as normalisation\n")
    (place / "names.txt").write_text("\n".join(NAMES) + "\n")
    with torch.random.fork_rng(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        torch.manual_seed(4)
        network = nf.subject("nets.py:Crack").build()
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.reset_parameters()
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        state = {f"module.{key}": value for key, value in network.state_dict().items()}
        torch.save({"state_dict": state, "epoch": 7}, place / "crack.pt")
        pixels = np.random.default_rng(0).integers(0, 255, (3, 9, 12, 3), dtype=np.uint8)
        (place / "photos" / "spall").mkdir(parents=True)
        for i, one in enumerate(pixels):
            Image.fromarray(one).resize((150, 120), Image.Resampling.BICUBIC).save(
                place / "photos" / "spall" / f"{i}.png"
            )
        yield place


@pytest.fixture(scope="module")
def photo(work: Path) -> str:
    return str(Path("photos", "spall", "0.png"))


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """What a command line prints that succeeds."""
    assert main(argv) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line of a command line that fails."""
    assert main(argv) == 2
    line = capsys.readouterr().err
    assert re.fullmatch(r"naflow-fx: error: [^\n]+\n", line)
    return line


def explained(capsys: pytest.CaptureFixture[str], out: str, *argv: str) -> tuple[Maps, Any, str]:
    """Maps, record and what is printed of `explain`, which saves its numbers."""
    printed = run(capsys, "explain", *argv, "--out", out, "--save-arrays")
    (record,) = Path(out).glob("*/flow.json")
    with np.load(record.parent / "maps.npz") as file:
        return dict(file), json.loads(record.read_text()), printed


@pytest.fixture(scope="module")
def right(photo: str) -> dict[str, Maps]:
    """Target -> maps, of `nf.compile` of a network that is built by hand."""
    space: dict[str, Any] = {"__name__": "by_hand"}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path.cwd()))
        exec(NETS, space)
    network = space["Crack"]().eval()
    state = torch.load("crack.pt")["state_dict"]
    network.load_state_dict({key.removeprefix("module."): v for key, v in state.items()})
    with Image.open(photo) as image:
        grey = np.asarray(image.convert("L").resize((120, 96), Image.Resampling.BILINEAR))
    image = torch.from_numpy(grey.copy())[None, None, :, 12:108].float() * (1 / 255)
    explainer = nf.compile(network, (image - 0.5) / 0.25)
    flows = {"": explainer((image - 0.5) / 0.25), "spall": explainer((image - 0.5) / 0.25, 2)}
    return {key: {n: m[0].numpy() for n, m in flow.maps.items()} for key, flow in flows.items()}


def assert_equal(found: Maps, wanted: Maps, tolerance: float = 1e-5) -> None:
    assert list(found) == list(wanted)
    assert any(value.any() for value in wanted.values())
    for name, value in wanted.items():
        assert np.abs(found[name] - value).max() <= tolerance * max(value.max(), 1e-20), name


BOX = """<annotation><object><name>spall</name><bndbox><xmin>30</xmin><ymin>20</ymin><xmax>90</xmax>
<ymax>80</ymax></bndbox></object></annotation>"""


@pytest.fixture(scope="module")
def boxed(work: Path) -> list[str]:
    """Arguments of `evaluate` for photos with boxes."""
    (work / "boxes").mkdir()
    for i in range(3):
        (work / "boxes" / f"{i}.xml").write_text(BOX)
    (work / "map.json").write_text('{"spall": 2}')
    given = "evaluate --data imagenet --root photos --annotations boxes --class-map map.json"
    return [*given.split(), "--metrics", "energy", "i_d"]
