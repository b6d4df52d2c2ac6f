"""The Python blocks of README and docs/operators.md run as printed (with random weights)."""

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
OPERATORS = README.parent / "docs" / "operators.md"
BLOCKS: list[str] = [
    code
    for page in (README, OPERATORS)
    for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
]


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


@pytest.mark.usefixtures("forget")
def test_add_a_layer_with_weights(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "operators"}
    exec(block("class Smooth"), names)
    assert capsys.readouterr().out.strip() == "[]"
    smooth = names["Smooth"](4)
    twin = nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)
    twin.weight.data = names["normed"](smooth.filters.detach())
    x = torch.randn(2, 3, 8, 8)

    def maps(layer: nn.Module) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), layer, nn.BatchNorm2d(4), nn.ReLU(),
                              nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))  # fmt: skip
        return dict(nf.compile(model, x)(x, 0).maps)

    ours, theirs = maps(twin), maps(smooth)
    assert list(ours) == list(theirs)
    for site, wanted in ours.items():
        torch.testing.assert_close(theirs[site], wanted, rtol=1e-4, atol=1e-5 * float(wanted.max()))
