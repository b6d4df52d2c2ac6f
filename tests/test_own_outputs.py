"""A network of the user's own as a file, and of other outputs: the same maps in every command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_network import (
    ALIKE,
    INPUT,
    NAMES,
    NUMBERS,
    OWN,
    Maps,
    assert_equal,
    boxed,
    explained,
    photo,
    refused,
    right,
    run,
    work,
)

import naflow_fx as nf
from naflow_fx.dataset.spec import as_spec
from naflow_fx.subjects import Recipe

__all__ = ["boxed", "photo", "right", "work"]  # fixtures


def energies(out: str) -> dict[str, Any]:
    found = json.loads(Path(out, "evaluation.json").read_text())
    return {k: v["energy"] for k, v in found["scores"].items()}


@pytest.mark.slow
def test_export_info_and_every_command_of_an_artefact(
    right: dict[str, Maps],
    boxed: list[str],
    photo: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(capsys, "export", "--format", "pt2", "--out", "crack.pt2", *OWN)
    assert "5, sound, crack, spall, ..." in run(capsys, "info", "crack.pt2")
    given = ["--artefact", "crack.pt2"]
    maps, record, _ = explained(capsys, "exported", photo, *given, "--target", "spall")
    assert_equal(maps, right["spall"], ALIKE)
    assert record["model"] == "Crack" and record["artefact"] == "crack.pt2"
    table = run(capsys, "inspect", *given)
    assert "48 x 48" in table and "residual" not in table
    for options in (["--out", "layers.txt"], ["--format", "table", "--out", "layers"]):
        assert run(capsys, "inspect", *given, *options) == f"written: {options[-1]}\n"
        assert Path(options[-1]).read_text().rstrip("\n") == table.rstrip("\n")
    assert "residual" in run(capsys, "inspect", *given, "--photo", photo)
    assert "an artefact doesn't tell" in refused(capsys, "inspect", *given, "--format", "dot")
    run(capsys, "report", photo, *given, "--out", "exported.html", "--target", "spall")
    assert '"Crack"' in Path("exported.html").read_text()
    assert "exported" in refused(capsys, "export", "--format", "pt2", "--out", "x.pt2",
                                 "--subject", subject_of_artefact())  # fmt: skip
    run(capsys, *boxed, *OWN, "--methods", "naflow", "--layers", "*", "--out", "of_network")
    run(capsys, *boxed, *given, "--out", "of_artefact")
    ours, theirs = energies("of_network")["naflow"], energies("of_artefact")["naflow"]
    wanted, got = (dict(zip(e["layers"], e["values"], strict=True))
                   for e in (ours, theirs))  # fmt: skip
    for name, values in wanted.items():
        np.testing.assert_allclose(got[name], values, rtol=1e-3)
    line = refused(capsys, *boxed, *given, "--methods", "layercam", "--out", "no")
    assert "one method, naflow" in line
    line = refused(capsys, "explain", photo, *given, "--weights", "crack.pt")
    assert "--weights: the artefact was made with its own" in line


BOTH = ["--model", "nets.py:Both", *OWN[2:], "--output", "logits"]


@pytest.mark.slow
def test_one_of_several_outputs_in_every_command(
    right: dict[str, Maps], boxed: list[str], photo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    maps, _, printed = explained(capsys, "both", photo, *BOTH, "--target", "spall")
    assert_equal({name: maps[name] for name in right["spall"]}, right["spall"], ALIKE)
    assert "spall" in printed
    run(capsys, "inspect", *BOTH, "--save-subject", "both.toml")
    assert Recipe.read("both.toml").output == as_spec("both.toml").output == "logits"
    run(capsys, "batch", "photos", "--subject", "both.toml", "--out", "both_rows", "--quiet",
        "--workers", "0", "--target", "spall", "--maps", "relu_1")  # fmt: skip
    stored = nf.open_results("both_rows").maps("relu_1", raw=True)[0]
    assert_equal({"relu_1": stored}, {"relu_1": right["spall"]["relu_1"]}, ALIKE)
    of_one, of_both = (
        run(capsys, "decompose", photo, *given, "--layers", "relu", "--out", f"tree{i}")
        for i, given in enumerate((OWN, BOTH))
    )
    assert of_one.replace("tree0", "tree1") == of_both
    for out, given in (("plain_scores", OWN), ("both_scores", BOTH)):
        run(capsys, *boxed, *given, "--methods", "layercam", "--layers", "relu_1", "--out", out)
    assert energies("plain_scores") == energies("both_scores")
    line = refused(capsys, "explain", photo, *BOTH[:-1], "maps")
    assert "output='maps': the model has no such output; it has 'logits', 'shares'" in line
    run(capsys, "export", "--format", "pt2", "--out", "both.pt2", *BOTH)
    line = refused(capsys, "explain", photo, "--artefact", "both.pt2", "--output", "0")
    assert "--output: the artefact was made with its own" in line


def test_targets_of_other_outputs(photo: str, capsys: pytest.CaptureFixture[str]) -> None:
    mask = ["--model", "nets.py:Mask", *OWN[2:]]
    subject = nf.subject("nets.py:Mask", weights="crack.pt", classes="names.txt", **NUMBERS)
    there = subject.build()(subject.inputs([photo]))[0].argmax(0)
    index = int(there.flatten().mode().values)
    target = f"segment:{NAMES[index]}"
    maps, record, printed = explained(capsys, "mask", photo, *mask, "--target", target)
    flow = nf.compile(subject.build(), subject.example(), target=nf.targets.segment(index))(
        subject.inputs([photo])
    )
    assert_equal(maps, {name: m[0].numpy() for name, m in flow.maps.items()}, ALIKE)
    assert f"score {float(flow.score[0]):.4g}" in printed
    run(capsys, "report", photo, *mask, "--target", target, "--out", "mask.html")
    run(capsys, "batch", "photos", *mask, "--target", target, "--out", "mask_rows", "--quiet",
        "--workers", "0")  # fmt: skip
    rows = nf.open_results("mask_rows").pandas()
    assert rows["score"][0] == pytest.approx(float(flow.score[0]), rel=1e-4)
    line = refused(capsys, "explain", photo, *mask)
    assert "not [N, classes]" in line and "--target segment:CLASS" in line
    line = refused(capsys, "explain", photo, *mask, "--target", "segment:crak")
    assert "no class 'crak'" in line
    line = refused(capsys, "explain", photo, *OWN, "--target", "number:x")
    assert "number:x: wanted a number behind the colon" in line
    _, record, _ = explained(capsys, "number", photo, *OWN, "--target", "number:2")
    assert record["score"] == pytest.approx(float(_scores(photo)[2]), rel=1e-4)


def _scores(photo: str) -> Any:
    subject = nf.subject("nets.py:Crack", weights="crack.pt", **NUMBERS)
    with torch.no_grad():
        return subject.build()(subject.inputs([photo]))[0]


def subject_of_artefact() -> str:
    Recipe(artefact="crack.pt2").save("artefact.toml")
    return "artefact.toml"


def test_onnx(right: dict[str, Maps], photo: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx2torch")
    network = nf.subject("nets.py:Crack", weights="crack.pt").build()
    program = torch.onnx.export(network, (torch.rand(2, 1, 96, 96),), dynamo=True, verbose=False,
                                dynamic_shapes=({0: torch.export.Dim("N")},))  # fmt: skip
    assert program is not None
    program.save("crack.onnx")
    given = ["--model", "crack.onnx", "--classes", "names.txt", *INPUT, "--target", "spall"]
    maps, record, _ = explained(capsys, "onnx", photo, *given)
    assert record["weights"] == "crack.onnx" and record["target_name"] == "spall"
    wanted = right["spall"]
    last = next(m for m in reversed(maps.values()) if m.shape == (24, 24))
    assert_equal({"relu_1": last}, {"relu_1": wanted["relu_1"]}, ALIKE)
    assert "leave weights" in refused(capsys, "explain", photo, *given, "--weights", "crack.pt")


def test_a_program_of_torch_export(
    right: dict[str, Maps], photo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    network = nf.subject("nets.py:Crack", weights="crack.pt").build()
    shapes = ({0: torch.export.Dim("N")},)
    program = torch.export.export(network, (torch.rand(2, 1, 96, 96),), dynamic_shapes=shapes)
    torch.export.save(program, "program.pt2")
    given = ["--model", "program.pt2", "--classes", "names.txt", *INPUT]
    maps, _, _ = explained(capsys, "program", photo, *given, "--target", "spall")
    assert_equal(maps, right["spall"])
    run(capsys, "export", "--format", "pt2", "--out", "ours.pt2", *OWN, "--layers", "pool")
    assert "--artefact ours.pt2" in refused(capsys, "inspect", "--model", "ours.pt2", *INPUT)
