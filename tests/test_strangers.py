"""The table of other packages' networks: what judges them finds what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import naflow_fx as nf

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools.strangers import judge, page  # noqa: E402
from tools.strangers.networks import Network, networks  # noqa: E402


@pytest.mark.slow
def test_two_networks_of_torchvision(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tools.strangers", "--only", "torchvision.models/s[hq]*"]
    done = subprocess.run([*command, "--out", str(tmp_path)], cwd=ROOT, capture_output=True,
                          text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = json.loads((tmp_path / page.JSON).read_text())
    assert list(table) == [
        f"torchvision.models/{n}()" for n in ("squeezenet1_1", "shufflenet_v2_x0_5")
    ]
    for row in table.values():
        assert row["verdict"] == "right" and row["missing"] == 0 and row["error"] < 1e-12
    assert "| torchvision |" in (tmp_path / page.PAGE).read_text()


def test_every_line_is_a_network() -> None:
    listed = networks()
    assert len({n.name for n in listed}) == len(listed) > 150
    assert len({n.package for n in listed}) > 8
    for n in listed:
        compile(n.call, n.name, "eval")


class Net(nn.Module):
    """An identity beside a branch, what works in place, a layer of two operators, one unused."""

    def __init__(self, lose: bool = False) -> None:
        super().__init__()
        self.conv, self.same, self.relu = nn.Conv2d(3, 4, 3), nn.Identity(), nn.ReLU(inplace=True)
        self.aux, self.twice, self.fc = nn.Conv2d(4, 2, 1), Twice(), nn.Linear(4, 3)
        self.lose = lose

    def forward(self, x: Tensor) -> Any:
        x = self.conv(x)
        self.aux(x)
        x = self.same(x) + self.relu(x)
        x = self.twice(self.twice(x))
        return self.fc(x.mean((2, 3)))


class Twice(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return (x * 2).tanh()


def judged(monkeypatch: pytest.MonkeyPatch, model: nn.Module) -> dict[str, Any]:
    monkeypatch.setattr(Network, "build", lambda self: model.double().eval())
    return judge.judge(Network("here", (3, 8, 8), "Net()"))


def test_a_right_network(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    row = judged(monkeypatch, Net())
    assert (row["verdict"], row["missing"], row["words"]) == ("right", 0, "")
    assert row["hooked"] == 3 and row["error"] < 1e-12  # conv, relu, twice


@pytest.mark.parametrize(("share", "verdict"), [(1 + 1e-6, "wrong"), (None, "silent")])
def test_what_is_wrong_is_found(
    share: float | None, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = nf.compile

    def faulty(*args: Any, **options: Any) -> Any:
        explainer = compiled(*args, **options)

        def explained(x: Tensor) -> Any:
            flow = explainer(x)
            found = flow.importance.pop("relu")
            if share is not None:
                flow.importance["relu"] = found * share
            return flow

        return explained

    monkeypatch.setattr("naflow_fx.compile", faulty)
    row = judged(monkeypatch, Net())
    assert row["verdict"] == verdict
    assert ("missing: relu" in row["words"]) == (share is None)


def test_refusals_and_raw_errors_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    sorting = nn.Sequential(nn.Conv2d(3, 4, 3), Sorted(), nn.Flatten(), nn.Linear(144, 2))
    row = judged(monkeypatch, sorting)
    assert row["verdict"] == "refused" and "sort" in row["words"]
    monkeypatch.setattr("naflow_fx.compile", lambda *args, **options: 1 / 0)
    assert judged(monkeypatch, Net())["words"] == "ZeroDivisionError: division by zero"
    assert judged(monkeypatch, Net())["verdict"] == "raw"
    assert judged(monkeypatch, nn.Linear(5, 2))["verdict"] == "unbuilt"


class Sorted(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return x.sort(1)[0]
