"""`naflow-fx inspect` and the formats that it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from browser import graphviz
from PIL import Image
from shelf import fill
from torch import Tensor, nn

from naflow_fx import models
from naflow_fx.cli import main
from naflow_fx.models.card import ModelCard

COFFEE = str(Path(__file__).resolve().parents[1] / "examples" / "coffee.png")


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 2, 8, stride=8), nn.ReLU(), nn.MaxPool2d(4))
        self.fc = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        score: Tensor = self.fc(self.stem(x).mean((2, 3)))
        return score


@pytest.fixture(autouse=True)
def built(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """How models were asked for; a tiny one is given."""
    calls: list[dict[str, Any]] = []

    def build(name: str, **options: Any) -> nn.Module:
        calls.append(options)
        return fill(Tiny())

    monkeypatch.setattr(models, "build", build)
    assert isinstance(models.card("resnet18"), ModelCard)
    return calls


def test_table(capsys: pytest.CaptureFixture[str], built: list[dict[str, Any]]) -> None:
    assert main(["inspect", "--steps", "2"]) == 0
    printed = capsys.readouterr().out
    assert "Tiny: 4 call sites; least squares in 2 steps" in printed
    assert "residual" not in printed and built == [{"pretrained": False, "weights": None}]
    assert main(["inspect", "--photo", COFFEE]) == 0
    assert "norm ratio" in capsys.readouterr().out and built[1]["pretrained"]


def test_pictures_dot_and_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["inspect", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "Tiny"
    assert main(["inspect", "--format", "dot", "--only", "stem"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith('digraph "Tiny" {') and '"forward:fc"' not in printed
    graphviz()
    path = tmp_path / "graph.svg"
    assert main(["inspect", "--only", "stem", "--out", str(path)]) == 0
    assert capsys.readouterr().out == f"written: {path}\n"
    assert "stem.0" in [*ElementTree.parse(path).getroot().itertext()]
    assert main(["inspect", "--format", "png", "--out", str(tmp_path / "any.name")]) == 0
    with Image.open(tmp_path / "any.name") as picture:
        assert picture.format == "PNG"


def test_html(tmp_path: Path) -> None:
    path = tmp_path / "graph.html"
    assert main(["inspect", "--format", "html", "--out", str(path)]) == 0
    page = path.read_text()
    assert page.startswith("<!doctype html>") and "stem_0" in page


def test_mistakes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["inspect", "--expand", "stem"]) == 2
    assert "add --format svg" in capsys.readouterr().err
    assert main(["inspect", "--format", "svg", "--out", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
    assert main(["inspect", "--format", "svg", "--expand", "head"]) == 2
    assert "no block is named head" in capsys.readouterr().err
    assert main(["inspect", "--format", "png"]) == 2
    assert "--format png: add --out FILE" in capsys.readouterr().err
    assert main(["inspect", "--out", str(tmp_path / "graph.bmp")]) == 2
    assert "must end in one of .svg" in capsys.readouterr().err
