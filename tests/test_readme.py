"""The README's Python blocks run as printed (with random weights: no network is needed)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

import naflow_fx as nf
from naflow_fx.rules import TABLE

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCKS: list[str] = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)


def block(words: str) -> str:
    """The one block with these words in it."""
    (found,) = (code for code in BLOCKS if words in code)
    return found


def test_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    built = torchvision.models.resnet18(weights=None)
    monkeypatch.setattr(torchvision.models, "resnet18", lambda weights: built)
    code = block("resnet18").replace("4, 3, 224, 224", "2, 3, 64, 64")
    names: dict[str, object] = {"__name__": "readme"}
    exec(code, names)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["000", "001"]
    flow = names["flow"]
    assert isinstance(flow, nf.AttentionFlow) and flow.maps["layer1.0.relu_1"].shape == (2, 16, 16)


def test_similarity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(README.parent / "examples")
    names: dict[str, Any] = {"__name__": "readme"}
    exec(
        block("few_shot").replace("target=similarity)", "target=similarity, layers='head*')"), names
    )
    pair = names["pair"]
    assert pair.query.maps["head_act"].shape == (1, 7, 7) and pair.contribution.shape == (1, 1280)
    assert (tmp_path / "out" / "grid.png").is_file()
    assert names["found"].index.tolist() == [[1, 0]] and names["episode"].prediction == 1


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    for name in ("rules", "targets", "modules", "forwards"):
        monkeypatch.setattr(TABLE, name, dict(getattr(TABLE, name)))


@pytest.mark.usefixtures("forget")
def test_add_an_operator(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {"__name__": "readme"}
    exec(block("Crelu"), names)
    assert capsys.readouterr().out.strip() == "[]"
    crelu = names["Crelu"]
    assert isinstance(crelu, type)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), crelu(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )
    flow = nf.compile(model, torch.randn(2, 3, 8, 8), keep="bpfm")(torch.randn(2, 3, 8, 8))
    assert list(flow.maps) == ["input", "0", "1"] and flow.bpfm["0"].any()
