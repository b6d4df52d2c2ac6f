"""Files and names of strangers: metadata of every wrong shape, text that would steer a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_untrusted import edited, honest, tampered

import naflow_fx as nf
from naflow_fx import artefacts
from naflow_fx.artefacts import metadata
from naflow_fx.cli import main
from naflow_fx.errors import ArtefactError, NaflowError
from naflow_fx.view.terminal import printable

__all__ = ["honest"]  # a fixture
TOLD = "extra/naflow_fx.json"
STEERING = "\x1b]0;owned\x07\x1b[31m\x9b2J\u202eexe"
PLAIN: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.just(1e300) | st.sampled_from("abc"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("xy"), inner),
    max_leaves=4,
)


def crafted(honest: Path, place: Path, edit: Callable[[Any], None]) -> Path:
    return tampered(honest, lambda files: edited(files, TOLD, edit), place)


def use(path: Path, photo: Path) -> None:
    """What there is to do with an artefact."""
    artefacts.load(path)(torch.rand(2, 3, 6, 6))
    for argv in (["info", str(path)], ["info", str(path), "--json"]):
        assert main(argv) in (0, 2)
    assert main(["explain", str(photo), "--artefact", str(path), "--out", str(photo.parent)]) in (
        0,
        2,
    )
    nf.ExplainerSpec(artefact=str(path)).prepare()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


KEYS = ("kind", "inputs", "outputs", "call_sites", "target", "options", "device", "preprocessing",
        "class_names", "info", "versions", "format")  # fmt: skip


@pytest.mark.slow
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(key=st.sampled_from(KEYS), value=PLAIN)
def test_any_entry_may_be_anything(
    honest: Path, tmp_path: Path, photo: Path, key: str, value: Any
) -> None:
    path = crafted(honest, tmp_path / "x.pt2", lambda told: told.update({key: value}))
    with contextlib.suppress(NaflowError):  # anything else fails the test
        use(path, photo)


@pytest.mark.parametrize("key", KEYS)
def test_an_entry_that_is_missing(honest: Path, tmp_path: Path, photo: Path, key: str) -> None:
    path = crafted(honest, tmp_path / "x.pt2", lambda told: told.pop(key))
    optional = key in ("preprocessing", "class_names", "info", "versions")
    if optional:
        assert artefacts.read(path).kind == "pt2"
    else:
        with pytest.raises(ArtefactError, match=f"metadata can't be read.*{key}"):
            artefacts.read(path)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda told: told.update(more=1), "missing or unknown: more"),
        (lambda told: told.update(target={}), "target is None"),
        (lambda told: told.update(device="abacus"), "device is 'abacus'"),
        (lambda told: told.update(target={"kind": ["class"]}), "target is"),
        (lambda told: told["inputs"][0].update(shape=["N", "M", 6, 6]), "size is open"),
        (lambda told: told.update(call_sites=["nowhere"]), "don't go together"),
        (lambda told: told["outputs"].append(told["outputs"][0]), "don't go together"),
    ],
)
def test_what_metadata_cannot_say(
    honest: Path, tmp_path: Path, edit: Callable[[Any], None], words: str
) -> None:
    with pytest.raises(ArtefactError, match=words):
        artefacts.read(crafted(honest, tmp_path / "x.pt2", edit))


@pytest.mark.parametrize(
    "prepare",
    [{"resize": "8"}, {"resize": [8], "crop": 8}, {"crop": 0}, {"mean": [0.5]}, {"std": "abc"},
     {"interpolation": "magic"}, {"nonsense": 1}, {"resize": True, "crop": 1}],
)  # fmt: skip
def test_a_preprocessing_that_is_none(
    honest: Path, tmp_path: Path, photo: Path, prepare: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = crafted(honest, tmp_path / "x.pt2", lambda told: told.update(preprocessing=prepare))
    assert main(["explain", str(photo), "--artefact", str(path)]) == 2
    assert f"{path}: its metadata can't be read" in capsys.readouterr().err
    with pytest.raises(ArtefactError, match="can't be read"):
        nf.ExplainerSpec(artefact=str(path)).prepare()


def test_outputs_that_the_program_does_not_give(honest: Path, tmp_path: Path) -> None:
    def edit(told: Any) -> None:
        told["outputs"].append({"name": "more", "shape": ["N"], "dtype": "float32"})

    loaded = artefacts.load(crafted(honest, tmp_path / "x.pt2", edit))
    with pytest.raises(ArtefactError, match=r"names \d+ outputs, its program gives"):
        loaded(torch.rand(2, 3, 6, 6))


@pytest.mark.parametrize("kind", ["pt2", "aoti", "onnx"])
def test_metadata_of_hundreds_of_megabytes_is_not_read(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "LARGEST", 1000)
    path, text = tmp_path / "x", json.dumps({"naflow_fx": " " * 1001})
    monkeypatch.setattr(json, "loads", lambda *_: 1 / 0)
    if kind == "onnx":
        size = len(text) + 100
        path.write_bytes(bytes([14 << 3 | 2, size & 127 | 128, size >> 7]) + text.encode())
    else:
        name = {"pt2": "x/extra/naflow_fx.json", "aoti": "x/aotinductor/m/x_metadata.json"}[kind]
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, text)
    with pytest.raises(ArtefactError, match="not an artefact"):
        artefacts.read(path)


def test_json_that_is_nested_too_deep(honest: Path, tmp_path: Path) -> None:
    def deep(files: dict[str, bytes]) -> None:
        files[TOLD] = b'{"format": 1, "info": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"

    with pytest.raises(ArtefactError, match="can't be read"):
        artefacts.read(tampered(honest, deep, tmp_path / "x.pt2"))


def is_plain(text: str) -> bool:
    return printable(text) == text and "\\x1b" in text


def test_text_is_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    assert printable("a\tb\n é 漢") == "a\tb\n é 漢"
    assert printable(STEERING + "\ud800\r") == (
        "\\x1b]0;owned\\x07\\x1b[31m\\x9b2J\\u202eexe\\ud800\\r"
    )
    assert main(["explain", f"{STEERING}.png"]) == 2
    assert is_plain(capsys.readouterr().err)
    with pytest.raises(SystemExit):
        main(["explain", "a.png", f"--{STEERING}"])
    assert is_plain(capsys.readouterr().err)


def test_an_artefact_of_a_stranger_does_not_steer_the_terminal(
    honest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names of classes, layers and the file, in tables, lines and errors."""

    def edit(told: Any) -> None:
        told["call_sites"] = [f"1{STEERING}"]
        for value in told["outputs"]:
            value["name"] = value["name"].replace(".1", f".1{STEERING}")
        told.update(class_names=[STEERING] * 2, info={STEERING: STEERING},
                    preprocessing={"resize": 6, "crop": 6})  # fmt: skip

    path, photo = crafted(honest, tmp_path / "x.pt2", edit), tmp_path / f"{STEERING}.png"
    Image.new("RGB", (8, 8)).save(photo)
    explain = ["explain", str(photo), "--artefact", str(path), "--out", str(tmp_path / "out")]
    for argv in (["info", str(path)], ["info", str(path), "--json"], explain):
        assert main(argv) == 0
        text = capsys.readouterr().out
        assert printable(text) == text and "owned" in text
    assert main([*explain, "--target", "nothing"]) == 2
    assert is_plain(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("command", "closed"),
    [("info", ">&-"), ("info", "2>&-"), ("info", ">&- 2>&-"), ("inspect", "<&- >&- 2>&-")],
)
def test_streams_that_are_closed(command: str, closed: str, honest: Path, tmp_path: Path) -> None:
    """No file of ours gets the number of a closed stream."""
    out = tmp_path / "graph.json"
    argv = {
        "info": str(honest),
        "inspect": f"--model alexnet --method gradcam --format json --out {out}",
    }[command]
    line = f"{sys.executable} -m naflow_fx {command} {argv} {closed}"
    assert subprocess.run(["bash", "-c", line], timeout=300).returncode == 0
    if command == "inspect":
        json.loads(out.read_text())


def test_a_stream_that_knows_ascii_only(honest: Path, tmp_path: Path) -> None:
    path = crafted(honest, tmp_path / "x.pt2", lambda told: told.update(class_names=["café", "漢"]))
    for argv in (["info", str(path)], ["models"]):
        line = [sys.executable, "-m", "naflow_fx", *argv]
        found = subprocess.run(line, capture_output=True, timeout=300,
                               env={**os.environ, "PYTHONIOENCODING": "ascii"})  # fmt: skip
        assert found.returncode == 0 and found.stdout.isascii() and not found.stderr
        assert argv[0] == "models" or b"caf\\xe9, \\u6f22" in found.stdout
