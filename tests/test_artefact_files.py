"""Artefacts: what is in the files, files that are none, what a format lacks."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from test_artefacts import FEW, NAMES, ROOT, WRITE, assert_same_flow, file_of, gate
from torch import Tensor, nn

import naflow_fx as nf
from naflow_fx import artefacts
from naflow_fx.artefacts import formats
from naflow_fx.artefacts.metadata import EXTRA, Metadata, Value, parse
from naflow_fx.errors import ArtefactError, NaflowError, required


@pytest.mark.parametrize("kind", WRITE)
def test_nothing_half_written(kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    explainer, _, _ = gate(layers="relu_1")
    path = file_of(kind, tmp_path)
    path.write_text("an earlier file")

    def fail(exported: Any, metadata: Metadata, path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(formats.WRITERS, kind, fail)
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
        formats.write_onnx(exported, facts, tmp_path / "x.onnx")


def test_types_that_onnxruntime_lacks(tmp_path: Path) -> None:
    explainer, _, _ = gate(layers="relu_1")
    explainer.to(torch.bfloat16)
    with pytest.raises(
        ArtefactError, match=r"(run the model: .*bfloat16.*Conv|ONNX can't express the program)"
    ):
        explainer.to_onnx(tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["pt2", "onnx"])
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (
            lambda outputs: 1 / 0,
            r"(torch.export|onnxruntime) can't run the model: division",
        ),
        (lambda outputs: outputs[:-1], r"something else than the program: \d+ outputs; wanted \d"),
        (lambda outputs: [o[:1] for o in outputs], r"than the program: output of shape \[1, "),
        (lambda outputs: [o + 1 for o in outputs], "than the program: output that differs by 1"),
    ],
)
def test_a_file_that_runs_wrong_is_not_left(
    kind: Any, wrong: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    explainer, _, _ = gate(layers="relu_1")
    opener = formats.OPENERS[kind]

    def opened(*args: Any) -> Any:
        run = opener(*args)
        return lambda inputs: wrong(run(inputs))

    monkeypatch.setitem(formats.OPENERS, kind, opened)
    with pytest.raises(ArtefactError, match=words):
        WRITE[kind](explainer, file_of(kind, tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("rank", [1, 3])
def test_onnx_of_other_ranks_without_a_bias(rank: int, tmp_path: Path) -> None:
    """ONNX's translation of a bias-free conv3d can't run; the solver's are such, too."""
    torch.manual_seed(0)
    conv, pool = getattr(nn, f"Conv{rank}d"), getattr(nn, f"AdaptiveAvgPool{rank}d")
    model = nn.Sequential(conv(2, 3, 3, padding=1, bias=False), nn.ReLU(),
                          conv(3, 2, 2, stride=2, groups=1), pool(1), nn.Flatten())  # fmt: skip
    x = torch.randn(2, 2, *(6,) * rank)
    explainer = nf.compile(model, x, inverse=nf.Inverse(precision="float32"))
    flow, loaded = explainer(x), artefacts.load(explainer.to_onnx(tmp_path / "x.onnx"))(x)
    for name, found in loaded.maps.items():
        torch.testing.assert_close(found, flow.maps[name], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_onnx_solves_in_float32(tmp_path: Path) -> None:
    explainer, x, target = gate(inverse=dataclasses.replace(FEW, precision="bfloat16"))
    precise, _, _ = gate()
    artefact = artefacts.load(explainer.to_onnx(tmp_path / "x.onnx"))
    assert artefact.metadata.options["inverse"]["precision"] == "float32"
    assert_same_flow(artefact(x, target), precise(x, target))


def test_a_missing_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"needs no_such_a, no_such_b, .*; pip install"):
        names = ("json", "no_such_a", "no_such_b")
        required(*names, extra="onnx", what="an ONNX model", error=ArtefactError)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    explainer, _, _ = gate(layers="relu_1")
    with pytest.raises(ArtefactError, match=r"onnxscript, .*; pip install 'naflow-fx\[onnx\]'"):
        explainer.to_onnx(tmp_path / "x.onnx")


def some_metadata() -> Metadata:
    image = Value("image", ("N", 3, 8, 8), "float32")
    outputs = tuple(Value(name, ("N",), "float32") for name in ("output", "score", "maps.a"))
    target = {"kind": "class"}
    return Metadata("onnx", (image,), outputs, ("a",), target, {}, "cpu", class_names=NAMES)


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
    for text, words in ((later, "--upgrade"), (torn, "can't be read"), (unknown, "kind is 'exe'")):
        with pytest.raises(ArtefactError, match=words):
            parse(text)
    with pytest.raises(ArtefactError, match="a folder"):
        artefacts.read(tmp_path)
    with pytest.raises(FileNotFoundError):
        artefacts.read(tmp_path / "none.pt2")


def test_a_damaged_artefact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        kind = dataclasses.replace(some_metadata(), kind="pt2")
        archive.writestr(f"x/extra/{EXTRA}", kind.to_json())
    with pytest.raises(NaflowError, match="damaged, or of another version"):
        artefacts.load(path)
    full = torch.OutOfMemoryError("CUDA out of memory")
    with monkeypatch.context() as patch, pytest.raises(torch.OutOfMemoryError):
        patch.setitem(formats.OPENERS, "pt2", Mock(side_effect=full))
        artefacts.load(path, trusted=True)
    for device in ("abacus", "cuda:99"):
        with pytest.raises(ArtefactError, match=f"device='{device}': not to be had on this"):
            artefacts.load(path, device=device)


def test_memory_that_is_short_is_no_fault_of_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    explainer, _, _ = gate(layers="relu_1")
    full = torch.OutOfMemoryError("CUDA out of memory")
    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", Mock(side_effect=full))
    with pytest.raises(torch.OutOfMemoryError):
        explainer.package(tmp_path / "x.pt2")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_files_do_not_tell_where_they_were_made(tmp_path: Path) -> None:
    explainer, _, _ = gate()
    here = str(Path(nf.__file__).parent).encode()
    with zipfile.ZipFile(explainer.export(tmp_path / "x.pt2")) as archive:
        assert not [name for name in archive.namelist() if here in archive.read(name)]
    assert here not in explainer.to_onnx(tmp_path / "x.onnx").read_bytes()
