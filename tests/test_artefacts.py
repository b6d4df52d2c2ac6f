"""Artefacts: round trips through every format, each run by a process without this package."""

from __future__ import annotations

import copy
import json
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shelf import densenet, fill, hazard, images, network
from torch import Tensor, nn

import naflow_fx as nf
from naflow_fx import artefacts, models
from naflow_fx.errors import ArtefactError, InputError, OptionError, TargetError
from naflow_fx.models import Preprocessing

ROOT = Path(__file__).resolve().parents[1]
FEW = nf.Inverse(steps=2, precision="float32")  # steps are written out in what is compiled
NAMES = ("bird", "cat", "dog", "fish", "fox")
WRITE: dict[str, Callable[..., Path]] = {
    "pt2": nf.Explainer.export,
    "aoti": nf.Explainer.package,
    "onnx": nf.Explainer.to_onnx,
}


def gate(**options: Any) -> tuple[nf.Explainer, Tensor, Tensor]:
    """The small network of most tests, three images, three targets."""
    x = images((3, 12, 12), batch=3, dtype=torch.float32)
    explainer = nf.compile(hazard("gate", torch.float32), x, **{"inverse": FEW, **options})
    return explainer, x, torch.tensor([-1, 1, 2])


def file_of(kind: str, folder: Path) -> Path:
    return folder / f"explainer.{'onnx' if kind == 'onnx' else 'pt2'}"


def elsewhere(path: Path, *inputs: Tensor) -> dict[str, Any]:
    """What a process that knows nothing of this package gets from the artefact."""
    given, found = path.with_name("inputs.npz"), path.with_name("results.npz")
    np.savez(given, *[x.numpy() for x in inputs])
    script = str(ROOT / "examples" / "run_artefact.py")
    command = [sys.executable, "-W", "ignore", script, str(path), str(given), str(found)]
    subprocess.run(command, check=True, cwd=path.parent)
    with np.load(found) as results:
        return {name.removesuffix("_out"): torch.from_numpy(x) for name, x in results.items()}


def assert_same_maps(found: dict[str, Any], wanted: nf.AttentionFlow) -> None:
    """Maps within 1e-3 of each one's largest value; their names in order."""
    assert [k[5:] for k in found if k.startswith("maps.")] == list(wanted.maps)
    for name, maps in wanted.maps.items():
        bound = 1e-3 * float(maps.nan_to_num().abs().max()) + 1e-7
        torch.testing.assert_close(found[f"maps.{name}"], maps, rtol=0, atol=bound, equal_nan=True)
    for part in ("output", "score"):
        value = getattr(wanted, part)
        torch.testing.assert_close(found[part], value, rtol=1e-3, atol=1e-4, equal_nan=True)
    assert wanted.target is None or torch.equal(found["target"], wanted.target)


# name: network, input, layers (all where small), formats; tools/round_trips.py runs the others
Case = tuple[Callable[[], nn.Module], tuple[int, ...], str | None, str]
CASES: dict[str, Case] = {
    "gate": (lambda: hazard("gate", torch.float32), (3, 12, 12), None, "pt2 onnx aoti"),
    "densenet": (lambda: densenet().float(), (3, 32, 32), None, "pt2 onnx"),
    "resnet18": (
        lambda: network("resnet18", torch.float32), (3, 32, 32), "layer4.1.*",
        "pt2 onnx aoti compiled",
    ),
    "efficientnet_lite0": (
        lambda: fill(models.build("efficientnet_lite0")), (3, 32, 32), "head_*", "pt2 onnx aoti",
    ),
    "resnet50_cbam": (
        lambda: fill(models.build("resnet50_cbam")), (3, 224, 224), "layer4.2.*", "pt2 onnx",
    ),
    "densenet121": (
        lambda: network("densenet121", torch.float32), (3, 64, 64),
        "features.denseblock4.denselayer16.*", "onnx",
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_round_trips(name: str, tmp_path: Path) -> None:
    build, shape, layers, kinds = CASES[name]
    x = images(shape, batch=3, dtype=torch.float32)
    explainer = nf.compile(build(), x[:1], inverse=FEW, layers=layers)
    target = torch.tensor([-1, 1, 2])
    wanted = explainer(x, target)
    for kind in kinds.split():
        if kind == "compiled":
            assert_same_flow(explainer.compiled()(x, target), wanted)
            continue
        path = file_of(kind, tmp_path)
        WRITE[kind](explainer, path)
        assert_same_maps(elsewhere(path, x, target), wanted)
        if kind == "aoti":
            assert_same_flow(artefacts.load(path, trusted=True)(x, target), wanted)
        one = explainer(x[:1])
        assert_same_maps(elsewhere(path, x[:1], target[:1]), one)
        bad = x.index_put((torch.tensor([1]), *(torch.tensor([0]),) * 3), torch.tensor(torch.nan))
        wanted_of_bad = explainer(bad, target)  # of one photo all is NaN, in every format
        assert all(
            m[1].isnan().all() and m[0].isfinite().all() for m in wanted_of_bad.maps.values()
        )
        assert_same_maps(elsewhere(path, bad, target), wanted_of_bad)


def assert_same_flow(found: nf.AttentionFlow, wanted: nf.AttentionFlow) -> None:
    flat = {f"maps.{name}": maps for name, maps in found.maps.items()}
    parts = {"output": found.output, "score": found.score, "target": found.target}
    assert_same_maps({**parts, **flat}, wanted)
    assert json.dumps(found.options) == json.dumps(wanted.options)
    assert found.input_size == wanted.input_size
    assert list(found.residual) == list(wanted.residual)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pt2", "onnx"])
def test_a_similarity(kind: str, tmp_path: Path) -> None:
    x = images((3, 12, 12), batch=6, dtype=torch.float32)
    target = nf.Similarity()
    explainer: Any = nf.compile(hazard("gate", torch.float32), x[:1], target=target, inverse=FEW)
    wanted, path = explainer(x[:3], x[3:]), file_of(kind, tmp_path)
    WRITE[kind](explainer, path, preprocessing=Preprocessing(12, 12))
    metadata = artefacts.read(path)
    assert [value.name for value in metadata.inputs] == ["query", "support"]
    assert metadata.target["kind"] == "similarity" and metadata.target["metric"] == "cosine"
    assert metadata.outputs[-1].shape[0] in ("N", "2*N")
    found = elsewhere(path, x[:3], x[3:])
    for name, maps in wanted.query.maps.items():
        both = torch.cat([maps, wanted.support.maps[name]])
        torch.testing.assert_close(found[f"maps.{name}"], both, rtol=1e-3, atol=1e-6)
    artefact = artefacts.load(path)
    result = artefact.run(x[:3], x[3:])
    torch.testing.assert_close(result["similarity"], wanted.similarity, rtol=1e-3, atol=1e-5)
    with pytest.raises(ArtefactError, match=r"run\(query, support\)"):
        artefact(x)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
def test_the_cpp_example(tmp_path: Path) -> None:
    source = (ROOT / "examples" / "explain.cpp").read_text()
    lines = re.findall(r"^//     ((?:T=|F=|g\+\+).*)$", source, re.M)
    assert len(lines) == 3
    script = "set -e\n" + "\n".join(lines).replace("examples/", f"{ROOT}/examples/")
    script = script.replace("python ", f"{sys.executable} -W ignore ")
    subprocess.run(["bash", "-c", script], check=True, cwd=tmp_path)
    explainer, x, _ = gate()
    explainer.package(tmp_path / "explainer.pt2")
    bad = x[:1].clone()
    bad[0, 0, 0, 0] = torch.nan  # nothing is known of such a photo
    for image in (x[:1], bad):
        image.numpy().tofile(tmp_path / "image.f32")
        command = ["./explain", "explainer.pt2", "image.f32"]
        printed = subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, text=True)
        rows = [line.split(" ", 1) for line in printed.stdout.splitlines()]
        wanted = explainer(image).maps
        assert [name for name, _ in rows] == list(wanted)
        for (_, text), maps in zip(rows, wanted.values(), strict=True):
            shape, largest = text.rsplit(" ", 1)
            assert json.loads(shape) == list(maps.shape)
            assert float(largest) == pytest.approx(float(maps.max()), rel=1e-3, nan_ok=True)
        assert all(m.isnan().all() == image.isnan().any() for m in wanted.values())


def test_compiled_is_called_as_the_explainer(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.compiler.reset()
    calls: list[dict[str, Any]] = []

    def compile(run: Any, **options: Any) -> Any:  # Inductor takes long: here it is asked only
        calls.append(options)
        return run

    monkeypatch.setattr(torch, "compile", compile)
    explainer, x, target = gate()
    compiled = explainer.compiled(mode="reduce-overhead")
    assert type(compiled) is nf.Explainer and compiled.layers == explainer.layers
    assert_same_flow(compiled(x, target), explainer(x, target))
    assert_same_flow(compiled(x), explainer(x))
    options = {"triton.cudagraphs": True, "layout_optimization": False}  # no channels-last: slower
    assert calls == [{"fullgraph": True, "options": options}]
    with pytest.raises(OptionError, match="mode='fast'.: wanted one of 'default', "):
        explainer.compiled(mode="fast")
    assert str(compiled.inspect()) == str(explainer.inspect())

    def score(out: Tensor) -> Tensor:
        return out[:, 1] - out[:, 2]

    assert_same_flow(compiled(x, score), explainer(x, score))
    assert len(calls) == 2  # a target that comes later is compiled too
    with pytest.raises(InputError, match="images: got"):
        compiled(x[:, :2])
    assert explainer.graph_module is not compiled.graph_module
    assert_same_flow(pickle.loads(pickle.dumps(compiled))(x), explainer(x))
    assert_same_flow(copy.deepcopy(compiled)(x), explainer(x))


def test_an_artefact_is_called_as_the_explainer(tmp_path: Path) -> None:
    explainer, x, target = gate(layers=["relu_1", "conv"], keep=("bpfm", "importance"))
    photo = Preprocessing(16, 12, (127.0,) * 3, (128.0,) * 3, 1.0, "bicubic")
    path = tmp_path / "new" / "explainer.pt2"
    told = explainer.export(path, preprocessing=photo, class_names=NAMES, info={"model": "gate"})
    assert told == path and [p.name for p in path.parent.iterdir()] == [path.name]
    artefact = artefacts.load(path)
    metadata = artefact.metadata
    assert artefact.layers == explainer.layers and metadata.call_sites == ("conv", "relu_1")
    assert metadata.kind == "pt2" and metadata.target == {"kind": "class"}
    assert [str(value) for value in metadata.inputs] == [
        "image float32 [N, 3, 12, 12]", "target int64 [N]",
    ]  # fmt: skip
    assert metadata.options == json.loads(json.dumps(explainer.options.to_json()))
    assert metadata.class_names == NAMES and metadata.info == {"model": "gate"}
    assert torch.__version__.startswith(metadata.versions["torch"])
    assert metadata.preprocessing is not None
    assert metadata.preprocessing["mean"] == [127.0] * 3 and metadata.preprocessing["crop"] == 12
    wanted, found = explainer(x, target), artefact(x, target)
    assert repr(found) == repr(wanted) and found.input_size == (12, 12)
    for part in ("maps", "residual", "norm_ratio", "sigma_max", "bpfm", "importance"):
        torch.testing.assert_close(dict(getattr(found, part)), dict(getattr(wanted, part)))
    assert torch.equal(artefact(x[:2], 1).score, explainer(x[:2], 1).score)
    with pytest.raises(InputError, match=r"float64 \[3, 3, 12, 12\].*float32 \[N, 3, 12, 12\]"):
        artefact(x.double())
    with pytest.raises(InputError, match="made for image"):
        artefact(x[:, :, 1:])
    with pytest.raises(TargetError, match="class 5 does not exist; wanted 0 to 4"):
        artefact(x, 5)
    with pytest.raises(InputError, match="got 1 inputs; wanted image float32"):
        artefact.run(x)
    with pytest.raises(InputError, match="different batches"):
        artefact.run(x, target[:2])


def test_a_target_that_was_compiled_in(tmp_path: Path) -> None:
    def score(out: Tensor) -> Tensor:
        return out[:, 1] - out[:, 2]

    explainer, x, _ = gate(target=score, layers="relu_1")
    artefact = artefacts.load(explainer.export(tmp_path / "explainer.pt2"))
    assert artefact.metadata.target["kind"] == "function"
    assert "score" in artefact.metadata.target["name"] and len(artefact.metadata.inputs) == 1
    found = artefact(x)
    assert found.target is None
    torch.testing.assert_close(found.maps["relu_1"], explainer(x).maps["relu_1"])
    with pytest.raises(TargetError, match="compiled in"):
        artefact(x, 1)


class TwoInputs(nn.Module):
    """Two images in, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3), nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(8, 5)

    def forward(self, photo: Tensor, depth: Tensor) -> Tensor:
        both = torch.cat([self.left(photo).relu(), self.right(depth).relu()], 1)
        scores: Tensor = self.head(both.mean((2, 3)))
        return scores


@pytest.mark.slow
def test_several_inputs(tmp_path: Path) -> None:
    x, depth = images((3, 8, 8), 3, torch.float32), images((1, 8, 8), 3, torch.float32)
    explainer = nf.compile(fill(TwoInputs()), (x, depth), inverse=FEW)
    artefact = artefacts.load(explainer.export(tmp_path / "explainer.pt2"))
    assert [value.name for value in artefact.metadata.inputs] == ["photo", "depth", "target"]
    torch.testing.assert_close(artefact((x, depth)).maps, explainer((x, depth)).maps)


def test_half_precision(tmp_path: Path) -> None:
    explainer, x, target = gate(layers="relu_1")
    explainer.to(torch.bfloat16)
    artefact = artefacts.load(explainer.export(tmp_path / "explainer.pt2"))
    assert artefact.metadata.inputs[0].dtype == "bfloat16"
    found = artefact(x.bfloat16(), target)
    torch.testing.assert_close(found.maps, explainer(x.bfloat16(), target).maps)
