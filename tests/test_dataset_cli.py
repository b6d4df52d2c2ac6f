"""`naflow-fx batch` and `naflow-fx report FOLDER`, with a network of two layers' cost."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from dataset_tiny import draw_photos, make

import naflow_fx as nf
from naflow_fx import artefacts
from naflow_fx.cli import main
from naflow_fx.models.preprocess import Preprocessing
from naflow_fx.options import Options

SMALL = Preprocessing(resize=36, crop=32)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    draw_photos(folder / "photos", 10)
    (folder / "photos" / "empty.png").write_bytes(b"")
    explainer = make(torch.device("cpu"))
    explainer.export(folder / "tiny.pt2", preprocessing=SMALL, class_names=list("abcde"))
    return folder


def words(place: Path, out: str, *more: str) -> list[str]:
    return ["batch", str(place / "photos"), "--out", str(place / out), "--artefact",
            str(place / "tiny.pt2"), "--batch-size", "4", "--part-size", "8", "--workers", "0",
            *more]  # fmt: skip


@pytest.mark.slow
def test_an_artefact_over_a_folder_then_a_page(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(place, "out")) == 0
    said = capsys.readouterr()
    assert "11 photos in " in said.out and "10 rows, 1 in failed.jsonl" in said.out
    assert "naflow-fx: 11 photos to explain, none done yet" in said.err
    assert main(words(place, "out", "--quiet")) == 0
    said = capsys.readouterr()
    assert "found 11 of 11 photos done in 2 parts (1 of them failed); 0 to go" in said.out
    assert said.err == ""
    rows = nf.open_results(place / "out").pandas()
    assert len(rows) == 10 and rows["prediction"].between(0, 4).all()
    page = place / "page.html"
    assert main(["report", str(place / "out"), "--out", str(page)]) == 0
    assert "attention flow of 10 photos" in page.read_text("utf-8")


def test_a_class_by_name(place: Path) -> None:
    assert main(words(place, "named", "--target", "c", "--quiet", "--maps")) == 0
    rows = nf.open_results(place / "named").pandas()
    assert set(rows["target"]) == {2}
    assert json.loads((place / "named/manifest.json").read_text())["job"]["maps"] == []


def test_a_run_and_its_statistics_need_no_pandas(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.delitem(sys.modules, "naflow_fx.dataset.aggregate", raising=False)  # needs it
    assert main(words(place, "bare")) == 0
    assert "means over photos [95 %]" in capsys.readouterr().out
    assert main(["report", str(place / "bare"), "--out", str(place / "bare.html")]) == 2
    assert "pip install 'naflow-fx[batch]'" in capsys.readouterr().err


def test_errors_are_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(place, "again", "--quiet")) == 0
    assert main(words(place, "again", "--batch-size", "2")) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1 and "batch_size: 4 there, 2 now" in error[0]
    assert main(words(place, "x", "--size", "64")) == 2
    assert "takes images [3, 32, 32], photos become [3, 64, 64]" in capsys.readouterr().err
    assert main(words(place, "x", "--target", "label")) == 2
    assert "has no labels" in capsys.readouterr().err


def test_a_model_by_name_at_another_size(place: Path) -> None:
    out = place / "by-name"
    command = ["batch", str(place / "photos"), "--out", str(out), "--size", "64", "--quiet",
               "--method", "layercam", "--layers", "head_act", "--workers", "0"]  # fmt: skip
    assert main(command) == 0
    found = nf.open_results(out)
    assert found.shapes == {"head_act": (2, 2)}
    prepare = found.manifest["job"]["explainer"]["preprocessing"]
    assert prepare["crop"] == 64 and len(found.class_names) == 1000


def test_names_of_other_classes_are_not_a_runs(place: Path) -> None:
    """Of a head with three classes the 1000 names of ImageNet are forgotten; given ones refused."""
    quick: Any = {"weights": "none", "model_args": {"num_classes": 3}, "method": "layercam",
                  "layers": ("head_act",), "preprocessing": SMALL}  # fmt: skip
    made = nf.ExplainerSpec(**quick).open(torch.device("cpu"))
    assert made.class_names == () and made.explain.classes == 3
    with pytest.raises(nf.NaflowError, match="2 names for 3 classes"):
        nf.ExplainerSpec(**quick, class_names=("a", "b")).open(torch.device("cpu"))
    (artefact,) = place.glob("*.pt2")
    assert nf.subject(artefact=str(artefact)).build("meta").artefact.device.type == "meta"
    of_file = nf.ExplainerSpec(artefact=str(artefact), method="layercam")
    with pytest.raises(nf.NaflowError, match="method: the artefact was made with its own"):
        of_file.open(torch.device("cpu"))


FORMER: dict[str, Any] = {  # of a file that version 0.1 wrote with preset="best"
    "inverse": {"damping": 0.01, "steps": None, "rows": "all", "prior": "zero",
                "weight": "importance", "clip": 10.0, "precision": "bfloat16"},
    "residual": "joint", "reduction": "attended", "method": "naflow", "layers": None, "keep": [],
}  # fmt: skip


@pytest.mark.slow
def test_files_that_name_removed_options_still_open(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    explainer = make(torch.device("cpu"))
    with monkeypatch.context() as patch:
        patch.setattr(Options, "to_json", lambda self: FORMER)
        explainer.export(place / "former.pt2", preprocessing=SMALL)
    read = artefacts.load(place / "former.pt2")
    assert read.metadata.options == FORMER
    assert read(torch.zeros(1, 3, 32, 32)).options["residual"] == "joint"
    command = words(place, "former")
    command[command.index(str(place / "tiny.pt2"))] = str(place / "former.pt2")
    assert (
        main(command) == 0 and main(command) == 0
    )  # the second one goes on, and has nothing to do
    assert main(["report", str(place / "former"), "--out", str(place / "page.html")]) == 0
    assert len(nf.open_results(place / "former").pandas()) == 10
