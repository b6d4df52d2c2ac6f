from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

from naflow_fx.cli import main
from naflow_fx.evaluation.measure import Effort, evaluate
from naflow_fx.evaluation.methods import NAMES, make
from naflow_fx.evaluation.report import fifths, means
from naflow_fx.evaluation.result import Evaluation
from naflow_fx.evaluation.synthetic import SmallCNN, synthetic

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
differences = importlib.import_module("evaluate_differences").differences


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> SmallCNN:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = SmallCNN(4).eval()
    monkeypatch.setattr("naflow_fx.evaluation.synthetic.trained", lambda shuffled=False: network)
    return network


@pytest.mark.usefixtures("untrained")
def test_evaluate_writes_figures_tables_and_curves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("zennit")
    given = ["evaluate", "--data", "synthetic", "--limit", "4", "--out", str(tmp_path)]
    assert main([*given, "--methods", "naflow", "layercam", "lrp", "--metrics", "energy",
                 "drop", "residual"]) == 0  # fmt: skip
    printed = capsys.readouterr().out
    assert "4 images" in printed and "layercam" in printed and "evaluation.json" in printed
    result = Evaluation.from_json(json.loads((tmp_path / "evaluation.json").read_text()))
    assert result.methods == ["naflow", "layercam", "lrp"]
    assert len(result.scores["naflow"]["energy"].layers) == 7
    assert result.scores["lrp"]["energy"].layers == ("input",)
    assert (tmp_path / "evaluation.md").read_text().count("| layercam |") == 3
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    every = ["--methods", "layercam", "--metrics", "energy", "--layers", "all"]
    assert main([*given, *every]) == 0
    result = Evaluation.from_json(json.loads((tmp_path / "evaluation.json").read_text()))
    assert len(result.scores["layercam"]["energy"].layers) > 7


@pytest.mark.usefixtures("untrained")
def test_sanity_checks_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["evaluate", "--data", "synthetic", "--limit", "2", "--out", str(tmp_path)]
    assert main([*given, "--methods", "layercam", "--metrics", "energy", "--sanity"]) == 0
    assert "Rank correlation of maps" in capsys.readouterr().out
    text = (tmp_path / "evaluation.md").read_text()
    head, row = text.split("Rank correlation of maps")[1].splitlines()[2::2]
    assert head.startswith("| method | 25% of weights |") and head.endswith("| random labels |")
    cells = row.split(" | ")
    assert cells[-1] == "1.000 [1.000, 1.000] |"  # here the same network
    assert all(float(cell.split()[0]) < 0.95 for cell in cells[1:5])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--methods", "magic"], "no method magic; there are naflow,"),
        (["--metrics", "speed"], "no metric speed; there are energy,"),
        (["--data", "voc", "--root", "x"], "--data voc needs --class-map"),
        (["--data", "coco"], "needs --root and --annotations and --class-map"),
        (["--data", "cub200", "--root", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_errors_are_one_line(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--out", str(tmp_path / "out"), *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_every_method_gives_maps(untrained: SmallCNN) -> None:
    data = synthetic(2)
    for library in ("captum", "zennit", "pytorch_grad_cam"):
        pytest.importorskip(library)
    for name in NAMES:
        explain = make(name, untrained, data.images[:1], ["1.conv2"])
        found = evaluate({name: explain}, data, ["energy", "entropy"])
        assert found.scores[name]["energy"].values.shape == (1, 2), name


def test_tables_mark_the_best_and_what_is_surely_worse() -> None:
    data = synthetic(24)
    assert data.evidence is not None
    inside = data.evidence.float()
    methods = {
        "exact": lambda x, t: {"a": inside[: len(x)], "b": inside[: len(x)]},
        "flat": lambda x, t: {"a": torch.ones_like(inside), "b": torch.ones_like(inside)},
    }
    found = evaluate(methods, data, ["energy", "residual"], effort=Effort(batch=24))
    assert "| exact | **1.000 [1.000, 1.000]** |" in means(found, ["energy"])
    assert "| exact | **1.000** |  |  |  | **1.000** | **1.000** |" in fifths(found, "energy")
    share = float(data.share.mean())
    assert f"| exact | -{1 - share:.3f}" in differences(found, "flat", ["exact"], "energy")
    assert "†" in differences(found, "flat", ["exact"], "energy")
    assert "†" not in differences(found, "exact", ["flat"], "energy")


def test_methods_of_the_input_alone_have_no_depth() -> None:
    data = synthetic(2)
    flat = torch.ones(2, 4, 4)
    methods = {"rise": lambda x, t: flat, "cam": lambda x, t: {"input": flat, "b": flat}}
    found = evaluate(methods, data, ["energy"])
    rise, cam = found.fifths("energy")[1:]
    assert rise[1:6] == [""] * 5 and rise[6]
    assert cam[1] and cam[5]
