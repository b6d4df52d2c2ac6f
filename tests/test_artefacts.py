"""Artefacts: round trips through every format, each run by a process without this package."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
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
from naflow_fx.artefacts import writers
from naflow_fx.artefacts.files import required
from naflow_fx.artefacts.metadata import EXTRA, Metadata, parse
from naflow_fx.errors import ArtefactError, InputError, NaflowError, OptionError, TargetError
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
        bound = 1e-3 * float(maps.abs().max()) + 1e-7
        torch.testing.assert_close(found[f"maps.{name}"], maps, rtol=0, atol=bound)
    for part in ("output", "score"):
        torch.testing.assert_close(found[part], getattr(wanted, part), rtol=1e-3, atol=1e-4)
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
    x[0].numpy().tofile(tmp_path / "image.f32")
    command = ["./explain", "explainer.pt2", "image.f32"]
    printed = subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, text=True)
    rows = [line.split(" ", 1) for line in printed.stdout.splitlines()]
    wanted = explainer(x[:1]).maps
    assert [name for name, _ in rows] == list(wanted)
    for (_, text), maps in zip(rows, wanted.values(), strict=True):
        shape, largest = text.rsplit(" ", 1)
        assert json.loads(shape) == list(maps.shape)
        assert float(largest) == pytest.approx(float(maps.max()), rel=1e-3)


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
    with pytest.raises(OptionError, match="mode='fast'.: wanted one of default, "):
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


@pytest.mark.parametrize("kind", WRITE)
def test_nothing_half_written(kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    explainer, _, _ = gate(layers="relu_1")
    path = file_of(kind, tmp_path)
    path.write_text("an earlier file")

    def fail(exported: Any, metadata: Metadata, path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(writers.WRITERS, kind, fail)
    with pytest.raises(OSError, match="No space"):
        WRITE[kind](explainer, path)
    assert path.read_text() == "an earlier file" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(ArtefactError, match="ends in"):
        WRITE[kind](explainer, tmp_path / "explainer.zip")
    (tmp_path / f"folder{path.suffix}").mkdir()
    with pytest.raises(ArtefactError, match="a folder is in the way"):
        WRITE[kind](explainer, tmp_path / f"folder{path.suffix}")


def test_an_operator_that_onnx_lacks(tmp_path: Path) -> None:
    class Special(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = torch.special.bessel_j0(x)
            return found

    with torch.no_grad():
        exported = torch.export.export(Special(), (torch.rand(2, 3),))
    facts = Metadata("onnx", (), (), (), {}, {}, "cpu")
    with pytest.raises(ArtefactError, match=r"express the operator \S*bessel_j0"):
        writers.write_onnx(exported, facts, tmp_path / "x.onnx")


def test_types_that_onnxruntime_lacks(tmp_path: Path) -> None:
    explainer, _, _ = gate(layers="relu_1")
    explainer.to(torch.bfloat16)
    with pytest.raises(ArtefactError, match=r"onnxruntime can't run the model: .*bfloat16.*Conv"):
        explainer.to_onnx(tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


def test_onnx_solves_in_float32(tmp_path: Path) -> None:
    explainer, x, target = gate(inverse=dataclasses.replace(FEW, precision="bfloat16"))
    precise, _, _ = gate()
    artefact = artefacts.load(explainer.to_onnx(tmp_path / "x.onnx"))
    assert artefact.metadata.options["inverse"]["precision"] == "float32"
    assert_same_flow(artefact(x, target), precise(x, target))


def test_a_missing_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"needs no_such_a, no_such_b; pip install 'naflow-fx"):
        required(("json", "no_such_a", "no_such_b"), "onnx", "an ONNX model")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    explainer, _, _ = gate(layers="relu_1")
    with pytest.raises(ArtefactError, match=r"onnxscript; pip install 'naflow-fx\[onnx\]'"):
        explainer.to_onnx(tmp_path / "x.onnx")


def some_metadata() -> Metadata:
    return Metadata("onnx", (), (), ("a",), {"kind": "class"}, {}, "cpu", class_names=NAMES)


def test_metadata_is_read_without_running(tmp_path: Path) -> None:
    text = some_metadata().to_json()
    assert parse(text) == some_metadata()
    path = tmp_path / "x.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"x/extra/{EXTRA}", text)
    assert artefacts.read(path) == some_metadata()
    onnx = pytest.importorskip("onnx")
    made = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], []))
    onnx.helper.set_model_props(made, {"other": "x", "naflow_fx": text})
    onnx.save(made, tmp_path / "x.onnx")
    assert artefacts.read(tmp_path / "x.onnx") == some_metadata()
    code = "import sys\nfrom naflow_fx import artefacts\nartefacts.read(sys.argv[1])\n"
    code += "assert not {'torch', 'onnx', 'numpy'} & set(sys.modules)"
    command = [sys.executable, "-c", code, str(tmp_path / "x.onnx")]
    subprocess.run(command, check=True, cwd=ROOT)


def test_files_that_are_no_artefacts(tmp_path: Path) -> None:
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("x/aotinductor/y_metadata.json", "[1]")
    later = json.dumps({**json.loads(some_metadata().to_json()), "format": 99})
    torn = json.dumps({"format": 1, "kind": "onnx"})
    unknown = dataclasses.replace(some_metadata(), kind="exe").to_json()  # type: ignore[arg-type]
    contents = [b"", b"\x00" * 100, b"text", b"\xff" * 50, b"\x72\xff\xff\xff\xff\x0fxx",
                other.getvalue(), other.getvalue()[:50]]  # fmt: skip
    for data in contents:
        (tmp_path / "x.pt2").write_bytes(data)
        with pytest.raises(ArtefactError, match="not an artefact of naflow_fx|can't be read"):
            artefacts.read(tmp_path / "x.pt2")
    for text, words in ((later, "--upgrade"), (torn, "can't be read"), (unknown, "not known")):
        with pytest.raises(ArtefactError, match=words):
            parse(text)
    with pytest.raises(ArtefactError, match="a folder"):
        artefacts.read(tmp_path)
    with pytest.raises(FileNotFoundError):
        artefacts.read(tmp_path / "none.pt2")


def test_a_damaged_artefact(tmp_path: Path) -> None:
    path = tmp_path / "x.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        kind = dataclasses.replace(some_metadata(), kind="pt2")
        archive.writestr(f"x/extra/{EXTRA}", kind.to_json())
    with pytest.raises(NaflowError, match="damaged, or of another version"):
        artefacts.load(path)


def test_files_do_not_tell_where_they_were_made(tmp_path: Path) -> None:
    explainer, _, _ = gate()
    here = str(Path(nf.__file__).parent).encode()
    with zipfile.ZipFile(explainer.export(tmp_path / "x.pt2")) as archive:
        assert not [name for name in archive.namelist() if here in archive.read(name)]
    assert here not in explainer.to_onnx(tmp_path / "x.onnx").read_bytes()
