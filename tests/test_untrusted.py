"""Artefacts from strangers: whatever could run when it is loaded is refused before."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

import naflow_fx as nf
from naflow_fx import artefacts
from naflow_fx.artefacts import formats, untrusted
from naflow_fx.artefacts.metadata import Metadata, Value
from naflow_fx.cli import main

Files = dict[str, bytes]
CPU = torch.device("cpu")
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
PROGRAM = "models/model.json"


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the exporter writes for a small network."""
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    explainer = nf.compile(model.eval(), torch.rand(1, 3, 6, 6), layers="1", method="gradcam")
    return explainer.export(tmp_path_factory.mktemp("pt2") / "explainer.pt2")


def tampered(honest: Path, change: Callable[[Files], None], place: Path) -> Path:
    """The file with its members changed; names without the archive's folder."""
    with zipfile.ZipFile(honest) as archive:
        folder = archive.namelist()[0].partition("/")[0]
        files = {n.partition("/")[2]: archive.read(n) for n in archive.namelist()}
    change(files)
    with zipfile.ZipFile(place, "w") as archive:
        for name, data in files.items():
            archive.writestr(f"{folder}/{name}", data)
    return place


class Runs:
    """Unpickled, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def saved(thing: Any) -> bytes:
    file = io.BytesIO()
    torch.save(thing, file)
    return file.getvalue()


def edited(files: Files, name: str, edit: Callable[[Any], None]) -> None:
    """Changes one JSON file."""
    data = json.loads(files[name])
    edit(data)
    files[name] = json.dumps(data).encode()


def pickled_weight(files: Files, mark: Path) -> None:
    def edit(data: Any) -> None:
        entry = next(iter(data["config"].values()))
        entry["use_pickle"] = True
        files[f"data/weights/{entry['path_name']}"] = saved({"x": Runs(mark)})

    edited(files, WEIGHTS, edit)


def pickled_weight_file(files: Files, mark: Path) -> None:
    files["data/weights/model.pt"] = saved({"x": Runs(mark)})


def pickled_sample(files: Files, mark: Path) -> None:
    files["data/sample_inputs/model.pt"] = saved(((Runs(mark),), {}))


def opaque_constant(files: Files, mark: Path) -> None:
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True,
             "tensor_meta": None}  # fmt: skip
    files["data/constants/opaque_obj_0"] = pickle.dumps(Runs(mark))
    edited(files, CONSTANTS, lambda data: data["config"].update(c=entry))


def nodes(data: Any) -> Any:
    return data["graph_module"]["graph"]["nodes"]


def expression(files: Files, mark: Path) -> None:
    code = f"__import__('pathlib').Path({str(mark)!r}).touch()"

    def edit(data: Any) -> None:
        text = json.dumps(data)
        start = text.index('"expr_str": "') + len('"expr_str": "')
        changed = text[:start] + code + text[text.index('"', start) :]
        data.clear()
        data.update(json.loads(changed))

    edited(files, PROGRAM, edit)


def call_of_the_system(files: Files, mark: Path) -> None:
    edited(files, PROGRAM, lambda data: nodes(data)[0].update(target="torch.os.system"))


def call_of_an_attribute(files: Files, mark: Path) -> None:
    edited(files, PROGRAM, lambda data: nodes(data)[0].update(target="_operator.attrgetter"))


def machine_code(files: Files, mark: Path) -> None:
    files["data/aotinductor/model/wrapper.so"] = b"\x7fELF"


ATTACKS = [pickled_weight, pickled_weight_file, pickled_sample, opaque_constant, expression,
           call_of_the_system, call_of_an_attribute, machine_code]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_could_run_is_refused(attack: Any, honest: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    path = tampered(honest, lambda files: attack(files, mark), tmp_path / "explainer.pt2")
    with pytest.raises(nf.NaflowError, match="which could run code when loaded"):
        artefacts.load(path)
    assert not mark.exists()
    assert main(["info", str(path)]) == 0 and not mark.exists()


@pytest.mark.parametrize("attack", [pickled_weight, pickled_weight_file, pickled_sample,
                                    expression])  # fmt: skip
def test_the_attacks_work_where_a_file_is_trusted(
    attack: Any, honest: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "ran"
    path = tampered(honest, lambda files: attack(files, mark), tmp_path / "explainer.pt2")
    with contextlib.suppress(Exception):  # what was unpickled is no tensor; by then it has run
        artefacts.load(path, trusted=True)
    assert mark.exists()


def test_a_package_is_loaded_only_where_it_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In Python, in a batch run, on the command line; one line says how."""
    path, photo = tmp_path / "x.pt2", tmp_path / "photo.png"
    Image.new("RGB", (8, 8)).save(photo)
    prepare = dataclasses.asdict(nf.models.Preprocessing(8, 8))
    image = Value("image", ("N", 3, 8, 8), "float32")
    outputs = tuple(Value(name, ("N",), "float32") for name in ("output", "score", "maps.conv"))
    target = {"kind": "class"}
    told = Metadata("aoti", (image,), outputs, ("conv",), target, {}, "cpu", prepare)
    with zipfile.ZipFile(path, "w") as archive:
        text = json.dumps({"naflow_fx": told.to_json()})
        archive.writestr("x/data/aotinductor/model/x_metadata.json", text)
    loaded: list[Path] = []
    monkeypatch.setitem(formats.OPENERS, "aoti", lambda path, *_: loaded.append(path))
    for call in (artefacts.load, lambda p: nf.ExplainerSpec(artefact=str(p)).open(CPU)):
        with pytest.raises(nf.NaflowError, match=r"machine code .* trusted=True.*--trusted"):
            call(path)
    argv = ["explain", str(photo), "--out", str(tmp_path / "out"), "--artefact", str(path)]
    assert main(argv) == 2 and not loaded
    (line,) = capsys.readouterr().err.splitlines()
    assert "machine code that runs when loaded; if you trust who made it" in line
    artefacts.load(path, trusted=True)
    nf.ExplainerSpec(artefact=str(path), trusted=True).open(CPU)
    with contextlib.suppress(Exception):  # nothing to run is in there
        main([*argv, "--trusted"])
    assert loaded == [path] * 3


def test_guards_are_not_run(honest: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    guard = f"__import__('pathlib').Path({str(mark)!r}).touch() is None"
    path = tampered(
        honest,
        lambda files: edited(files, PROGRAM, lambda data: data.update(guards_code=[guard])),
        tmp_path / "explainer.pt2",
    )
    assert artefacts.load(path)(torch.rand(2, 3, 6, 6)).maps and not mark.exists()


def test_what_was_exported_is_read(honest: Path) -> None:
    x = torch.rand(2, 3, 6, 6)
    found, trusted = artefacts.load(honest)(x), artefacts.load(honest, trusted=True)(x)
    assert torch.equal(found.maps["1"], trusted.maps["1"])


@pytest.mark.parametrize("text", ["Symbol('s40', positive=True, integer=True)", "Integer(-2)",
                                  "Mul(Integer(2), Symbol('s1', integer=True))"])  # fmt: skip
def test_expressions_of_sizes_are_known(text: str) -> None:
    assert untrusted.EXPRESSION.fullmatch(text)


@pytest.mark.parametrize("text", ["Symbol('x').__class__", "eval('1')", "Symbol('s1', a=exec)",
                                  "Integer(1) if 1 else 2", "[1]", "lambda: 1"])  # fmt: skip
def test_other_expressions_are_not(text: str) -> None:
    assert not untrusted.EXPRESSION.fullmatch(text)
