"""The command line: what it writes and prints, and what it asks of the compiler."""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import naflow_fx
from naflow_fx.cli import main
from naflow_fx.flow import AttentionFlow
from naflow_fx.models.preprocess import Preprocessing
from naflow_fx.options import REMOVED

ROOT = Path(__file__).resolve().parents[1]
COFFEE = ROOT / "examples" / "coffee.png"
LAYERS = ["stem_conv", "blocks.0.act", "head_act"]


class FakeExplainer:
    """Answers as a compiled explainer does, with class 967 and a map for each of LAYERS."""

    classes = 1000

    def __init__(self, model: Any, example: Tensor, **options: Any) -> None:
        self.model, self.options = model, options
        self.layers = LAYERS[: 1 if options.get("layers") else None]
        self.images: list[Tensor] = []
        self.targets: list[Any] = []
        assert example.shape == (1, 3, 224, 224)

    def inspect(self) -> Any:
        text = f"a table of {len(self.layers)} layers"
        return SimpleNamespace(content=lambda *_: text.encode())

    def __call__(self, images: Tensor, target: int | None = None) -> AttentionFlow:
        self.images.append(images)
        self.targets.append(target)
        output = torch.zeros(1, 1000)
        output[0, 967] = 9.0
        shown = 967 if target is None else target
        sizes = {name: max(28 >> i, 1) for i, name in enumerate(LAYERS)}
        return AttentionFlow(
            maps=OrderedDict((name, torch.rand(1, n, n)) for name, n in sizes.items()),
            output=output,
            score=output[:, shown],
            target=torch.tensor([shown]),
            residual={name: torch.tensor([0.125]) for name in LAYERS},
            norm_ratio={LAYERS[0]: torch.tensor([float("nan")])},
            input_size=(224, 224),
            options={"method": "naflow", "inverse": {"damping": 0.01}, "layers": None},
        )


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[FakeExplainer]:
    """Explainers that commands made, instead of compiled ones."""
    explainers: list[FakeExplainer] = []

    def compile(model: Any, example: Tensor, **options: Any) -> FakeExplainer:
        explainers.append(FakeExplainer(model, example, **options))
        return explainers[-1]

    monkeypatch.setattr(naflow_fx, "compile", compile, raising=False)
    return explainers


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is not there yet, in an empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "out"


def names_in(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_explain_writes_and_prints(
    made: list[FakeExplainer], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", str(COFFEE), "--out", str(out), "--verbose"]) == 0
    maps = {f"maps/{i:03d}_{name}.png" for i, name in enumerate(LAYERS, start=1)}
    assert names_in(out) == {f"coffee/{f}" for f in maps | {"grid.png", "flow.json"}}
    record = json.loads((out / "coffee" / "flow.json").read_text())
    assert record["photo"]["file"] == "coffee.png" and record["photo"]["size"] == [400, 600]
    assert re.fullmatch("[0-9a-f]{64}", record["photo"]["sha256"])
    assert record["model"] == "efficientnet_lite0" and record["weights"] == "IMAGENET1K"
    assert record["target"] == 967 and record["target_name"] == "espresso"
    assert record["top5"][0]["name"] == "espresso" and len(record["top5"]) == 5
    assert [layer["name"] for layer in record["layers"]] == LAYERS
    assert record["layers"][0]["norm_ratio"] is None and record["versions"]["torch"]
    printed = capsys.readouterr()
    assert printed.err == ""  # no progress bar outside of a terminal
    assert "coffee.png: espresso 89.0%" in printed.out and "explained: class 967" in printed.out
    rows = [line.split() for line in printed.out.splitlines()]
    assert ["1", "stem_conv", "28", "x", "28", "0.125", "nan"] in rows
    assert ["3", "head_act", "7", "x", "7", "0.125", "-"] in rows
    assert f"written: {out / 'coffee' / 'grid.png'}" in printed.out


@pytest.mark.parametrize("asked", [[], ["--layers", "all"]])
def test_twelve_layers_are_drawn_unless_all_are_asked_for(
    asked: list[str],
    made: list[FakeExplainer],
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "LAYERS", [f"l{i}" for i in range(34)])
    assert main(["explain", str(COFFEE), "--out", str(out), *asked]) == 0
    drawn = [f"l{i}" for i in (range(34) if asked else range(0, 34, 3))]
    maps = [f"maps/{i:03d}_{name}.png" for i, name in enumerate(drawn, start=1)]
    assert names_in(out / "coffee") == {"grid.png", "flow.json", *maps}
    record = json.loads((out / "coffee" / "flow.json").read_text())
    assert [layer["name"] for layer in record["layers"]] == LAYERS
    assert [layer["file"] for layer in record["layers"] if layer["file"]] == maps
    assert made[0].options == {}
    printed = capsys.readouterr().out
    assert "residual" not in printed  # the table comes with --verbose
    few = "" if asked else " of 34; every one: --layers all"
    assert printed.endswith(f"flow.json, {len(drawn)} maps{few}\n")


def test_pictures_show_what_the_network_saw(made: list[FakeExplainer], out: Path) -> None:
    assert main(["explain", str(COFFEE), "--out", str(out), "--alpha", "0"]) == 0
    with Image.open(out / "coffee" / "maps" / "001_stem_conv.png") as image:
        assert image.size == (350, 350)  # the photo's own resolution, 400 / 256 of the network's
        shown = np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC)).astype(float)
    bundled = Preprocessing(256, 224, (127.0,) * 3, (128.0,) * 3, 1.0, "bicubic")
    assert np.abs(shown - bundled.denormalise(made[0].images[0])).mean() < 3


def test_several_photos_of_one_name_with_a_target(made: list[FakeExplainer], out: Path) -> None:
    other = out.parent / "sub" / "coffee.jpg"
    other.parent.mkdir()
    with Image.open(COFFEE) as image:
        image.save(other)
    argv = ["explain", str(COFFEE), str(other), str(COFFEE), "--target", "Tabby"]
    assert main(argv) == 0
    assert {p.name for p in (out.parent / "naflow_out").iterdir()} == {
        "coffee", "coffee-2", "coffee-3"
    }  # fmt: skip
    assert len(made) == 1 and made[0].targets == [281] * 3


def test_options_reach_compile(made: list[FakeExplainer], out: Path) -> None:
    argv = "--layers stem* head* --method layercam --reduction channelwise"
    assert main(["explain", str(COFFEE), *argv.split()]) == 0
    assert made[0].options == {
        "layers": ["stem*", "head*"], "method": "layercam",
        "reduction": "channelwise",
    }  # fmt: skip
    argv = "--damping 0.5 --steps 3 --rows leading"
    assert main(["inspect", *argv.split()]) == 0
    wanted = naflow_fx.Inverse(damping=0.5, steps=3, rows="leading")
    assert made[1].options == {"inverse": wanted}
    assert main(["inspect"]) == 0 and made[2].options == {}


@pytest.mark.parametrize("name", ["preset", "residual", "weight", "prior"])
def test_removed_options_name_what_serves_now(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["explain", str(COFFEE), f"--{name}", "best"])
    assert f"--{name} was removed; {REMOVED[name]}" in capsys.readouterr().err


def test_explaining_again_replaces(made: list[FakeExplainer], out: Path) -> None:
    for _ in range(2):
        assert main(["explain", str(COFFEE), "--out", str(out), "--colormap", "viridis"]) == 0
    assert len(names_in(out)) == len(LAYERS) + 2


def test_nothing_overwrites_the_answer_to_another_question(
    made: list[FakeExplainer], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another photo of the same name, another target, another method; the same ones find theirs."""
    (out.parent / "b").mkdir()
    other = out.parent / "b" / "coffee.png"
    with Image.open(COFFEE) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(other)
    questions = ([str(COFFEE)], [str(other)], [str(COFFEE), "--target", "tabby"],
                 [str(COFFEE), "--method", "layercam"])  # fmt: skip
    for _ in range(2):
        for number, argv in enumerate(questions, start=1):
            assert main(["explain", *argv, "--out", str(out)]) == 0
            place = out / ("coffee" if number == 1 else f"coffee-{number}")
            assert f"written: {place / 'grid.png'}" in capsys.readouterr().out
    assert len(list(out.iterdir())) == 4
    record = json.loads((out / "coffee-3" / "flow.json").read_text())
    assert record["target"] == 281 and record["question"]["target"] == "tabby"


def test_a_record_that_is_not_ours_is_left_alone(made: list[FakeExplainer], out: Path) -> None:
    for text in ("[]", "no JSON", '{"photo": 1}'):
        (out / "coffee").mkdir(parents=True, exist_ok=True)
        (out / "coffee" / "flow.json").write_text(text)
        assert main(["explain", str(COFFEE), "--out", str(out)]) == 0
        assert (out / "coffee" / "flow.json").read_text() == text
    assert {p.name for p in out.iterdir()} == {"coffee", "coffee-2"}


def test_inspect_and_models(made: list[FakeExplainer], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "--layers", "stem*"]) == 0
    assert capsys.readouterr().out == "a table of 1 layers\n"
    assert main(["models"]) == 0
    printed = capsys.readouterr().out
    assert re.search(
        r"efficientnet_lite0 +IMAGENET1K +256 > 224 bicubic, \(x - 127\) / 128", printed
    )
    assert re.search(r"resnet50 +IMAGENET1K_V2, IMAGENET1K_V1 +232 > 224 bilinear", printed)


@pytest.mark.slow
def test_the_bundled_model_and_photo_for_real(out: Path) -> None:
    assert main(["explain", str(COFFEE), "--out", str(out), "--layers", "head_*"]) == 0
    record = json.loads((out / "coffee" / "flow.json").read_text())
    assert [layer["name"] for layer in record["layers"]] == ["head_conv", "head_bn", "head_act"]
    assert all(layer["shape"] == [7, 7] and layer["max"] > 0 for layer in record["layers"])
    assert record["target_name"] == "espresso" and record["top5"][0]["probability"] > 0.9
    assert record["options"]["layers"] == ["head_*"] and record["options"]["method"] == "naflow"
    with Image.open(out / "coffee" / "maps" / "003_head_act.png") as image:
        shown = np.asarray(image, dtype=float).mean(2)
    assert shown[100:200, 100:250].mean() > 1.2 * shown[250:].mean()  # the cup, not the saucer


def run_alone(code: str) -> str:
    """What some code prints in a process of its own, with one thread as the tests have."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_explaining_a_photo_imports_and_writes(out: Path) -> None:
    """Work that would make a person wait: imports that nothing needs, 146 pictures."""
    code = (
        "import gc, sys\n"
        "from naflow_fx.cli import main\n"
        f"sys.argv[1:] = ['explain', {str(COFFEE)!r}, '--out', {str(out)!r}]\n"
        "assert main() == 0 and gc.isenabled() and gc.get_freeze_count() > 100_000\n"
        "print('imported:', *sys.modules)"
    )
    imported = set(run_alone(code).rpartition("imported:")[2].split())
    assert {"torch", "PIL", "naflow_fx.compiler"} <= imported
    idle = {
        "matplotlib", "onnx", "onnxruntime", "pandas", "pyarrow", "ray", "scipy", "skimage",
        "torch._inductor.codecache", "torch._inductor.compile_fx", "torch.export._trace",
        "naflow_fx.dataset", "naflow_fx.decomposition", "naflow_fx.evaluation",
        "naflow_fx.view.page", "naflow_fx.view.html", "jinja2",
    }  # fmt: skip
    assert not imported & idle
    assert len(names_in(out)) == 14


def test_importing_the_package_imports_nothing_else() -> None:
    imported = set(run_alone("import sys, naflow_fx; print(*sys.modules)").split())
    idle = set(run_alone("import sys; print(*sys.modules)").split())
    tops = {name.split(".")[0] for name in imported - idle}
    assert tops - sys.stdlib_module_names == {"naflow_fx", "lazy_loader"}  # which reads the names


def test_commands_called_from_python_leave_the_search_for_garbage_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    frozen = gc.get_freeze_count()
    assert main(["models"]) == 0
    assert gc.isenabled() and gc.get_freeze_count() == frozen
