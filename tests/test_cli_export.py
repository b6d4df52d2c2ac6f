"""`naflow-fx export` and `info`, and `explain --artefact`."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from test_cli import COFFEE, FakeExplainer, made, names_in, out
from test_cli_errors import error_of

import naflow_fx as nf
from naflow_fx import artefacts
from naflow_fx.artefacts.metadata import EXTRA, Metadata, Value
from naflow_fx.cli import main
from naflow_fx.models.preprocess import class_names

__all__ = ["made", "out"]  # fixtures

SMALL = ["--layers", "head_*", "--steps", "2"]


@pytest.mark.slow
def test_an_artefact_explains_as_its_model(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = out.parent / "explainer.pt2"
    assert main(["export", "--format", "pt2", "--out", str(file), *SMALL]) == 0
    assert "written: " in (printed := capsys.readouterr().out) and "torch.export" in printed
    assert main(["explain", str(COFFEE), "--out", str(out), "--artefact", str(file)]) == 0
    told = capsys.readouterr().out
    model = out.parent / "model"
    assert main(["explain", str(COFFEE), "--out", str(model), *SMALL]) == 0
    assert told == capsys.readouterr().out.replace(str(model), str(out))
    assert names_in(out) == names_in(model)
    for name in sorted(names_in(out)):
        if name.endswith(".png"):
            assert (out / name).read_bytes() == (model / name).read_bytes()
    found = json.loads((out / "coffee" / "flow.json").read_text())
    wanted = json.loads((model / "coffee" / "flow.json").read_text())
    assert found.pop("artefact") == "explainer.pt2" and found["target_name"] == "espresso"
    assert found.keys() == wanted.keys() and found["options"] == wanted["options"]
    assert found["model"] == "efficientnet_lite0" and found["weights"] == "IMAGENET1K"
    assert main(["info", str(file)]) == 0
    assert "call sites: 3" in capsys.readouterr().out.splitlines()
    argv = ["explain", str(COFFEE), "--out", str(out), "--artefact", str(file)]
    assert main([*argv, "--target", "tabby", "--layers", "all"]) == 0
    assert "explained: class 281, tabby" in capsys.readouterr().out


def test_info(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = artefact(tmp_path, class_names=("cat", "dog", "fox", "owl"))
    assert main(["info", str(path)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r".*x\.pt2: torch\.export program, [\d.]+ MB, for cpu", printed[0])
    assert "model: toy" in printed and "classes: 4, cat, dog, fox, ..." in printed
    assert "inputs: image float32 [N, 3, 8, 8], target int64 [N]" in printed
    assert "target: kind class" in printed and "outputs: output, score, maps" in printed
    assert "options: method naflow, inverse (damping 0.01)" in printed
    assert "preprocessing: not told" in printed and printed[-1] == "  a.b  4 x 4"
    assert main(["info", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["call_sites"] == ["a.b"]


def artefact(folder: Path, **changes: Any) -> Path:
    """A .pt2 with metadata, and nothing that runs."""
    import zipfile

    facts = Metadata(
        kind="pt2",
        inputs=(Value("image", ("N", 3, 8, 8), "float32"), Value("target", ("N",), "int64")),
        outputs=(
            Value("output", ("N", 4), "float32"),
            Value("score", ("N",), "float32"),
            Value("maps.a.b", ("N", 4, 4), "float32"),
        ),
        call_sites=("a.b",),
        target={"kind": "class"},
        options={"method": "naflow", "inverse": {"damping": 0.01}},
        device="cpu",
        info={"model": "toy"},
        versions={"torch": "2.11"},
    )
    path = folder / "x.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"x/extra/{EXTRA}", dataclasses.replace(facts, **changes).to_json())
    return path


SQUARE = {"resize": 8, "crop": 8}


@pytest.mark.parametrize(
    ("changes", "argv", "words"),
    [
        ({}, [], "how photos become inputs isn't known; give its size"),
        ({"preprocessing": SQUARE}, [], "x.pt2: damaged, or of another version of torch"),
        ({"preprocessing": SQUARE}, ["--layers", "a", "--steps", "3"], "--layers, --steps: the"),
        ({"preprocessing": SQUARE}, ["--model", "resnet18"], "not allowed with argument"),
        (
            {"preprocessing": SQUARE},
            ["--target", "owl"],
            "isn't known; give a number, or --classes FILE",
        ),
        (
            {"preprocessing": SQUARE, "class_names": ("cat", "dog")},
            ["--target", "owl"],
            "no class 'owl'; there are: cat (0), dog (1)",
        ),
        ({"target": {"kind": "similarity"}}, [], "compares two images"),
    ],
)
def test_artefacts_that_do_not_fit(
    changes: dict[str, Any],
    argv: list[str],
    words: str,
    out: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = artefact(out.parent, **changes)
    line = error_of(capsys, "explain", str(COFFEE), "--artefact", str(path), *argv)
    assert words in line and names_in(out.parent) == {"x.pt2"}


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["export"], "required: --format, --out"),
        (["export", "--format", "zip", "--out", "x.zip"], "invalid choice: 'zip'"),
        (["export", "--format", "onnx", "--out", "x.pt2"], "wanted a name that ends in .onnx"),
        (["export", "--format", "pt2", "--out", "x.pt2", "--model", "no"], "no model 'no'"),
        (["export", "--format", "pt2", "--out", "x.pt2", "--steps", "0"], "steps=0"),
        (["info"], "required: FILE"),
        (["info", "none.pt2"], "none.pt2: No such file"),
        (["info", str(COFFEE)], "coffee.png: not an artefact of naflow_fx"),
        (["explain", str(COFFEE), "--artefact", "none.onnx"], "none.onnx: No such file"),
    ],
)
def test_errors_are_one_line_and_write_nothing(
    argv: list[str], words: str, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in error_of(capsys, *argv)
    assert not names_in(out.parent)


def test_what_export_asks_for(
    made: list[FakeExplainer], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Any] = {}

    def package(self: FakeExplainer, path: Path, **facts: Any) -> Path:
        told.update(facts)
        path.write_bytes(b"package")
        return path

    for name in ("export", "package", "to_onnx"):
        monkeypatch.setattr(FakeExplainer, name, package, raising=False)
    argv = ["export", "--format", "aoti", "--out", str(out.parent / "x.pt2")]
    assert main([*argv, "--layers", "stem*", "--method", "layercam"]) == 0
    assert made[0].options == {"layers": ["stem*"], "method": "layercam"}
    assert told["class_names"] == class_names() and told["preprocessing"].crop == 224
    assert told["info"] == {
        "model": "efficientnet_lite0",
        "weights": "IMAGENET1K",
        "subject": {"model": "efficientnet_lite0"},
    }


def test_an_artefact_has_the_signature_of_the_readme(tmp_path: Path) -> None:
    with torch.no_grad():
        model = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(), torch.nn.Linear(4, 5),
        )  # fmt: skip
        explainer = nf.compile(model, torch.randn(1, 3, 8, 8))
        path = explainer.export(tmp_path / "explainer.pt2")
        program = torch.export.load(path).module()
        result = program(torch.randn(2, 3, 8, 8), torch.tensor([-1, 3]))
    assert list(result) == ["output", "score", "target", "maps", "residual", "norm_ratio",
                            "sigma_max"]  # fmt: skip
    assert {n: tuple(m.shape) for n, m in result["maps"].items()} == {
        "input": (2, 8, 8), "0": (2, 6, 6), "1": (2, 6, 6),
    }  # fmt: skip
    assert artefacts.read(path).call_sites == tuple(result["maps"])
