"""A network of the user's own, in every command: the same maps, under the user's own names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from own_network import (
    ALIKE,
    CRACK,
    INPUT,
    NAMES,
    NUMBERS,
    OWN,
    Maps,
    assert_equal,
    explained,
    photo,
    refused,
    right,
    run,
    work,
)
from PIL import Image

import naflow_fx as nf
from naflow_fx.cli import main
from naflow_fx.errors import ModelError, NaflowError, PhotoError, TargetError

__all__ = ["photo", "right", "work"]  # fixtures


def test_explain(right: dict[str, Maps], photo: str, capsys: pytest.CaptureFixture[str]) -> None:
    maps, record, printed = explained(capsys, "predicted", photo, *OWN)
    assert_equal(maps, right[""])
    assert record["model"] == "Crack" and record["weights"] == "crack.pt"
    assert record["subject"]["classes"] == "names.txt" and record["subject"]["channels"] == 1
    assert record["target_name"] in NAMES and record["target_name"] in printed
    assert {entry["name"] for entry in record["top5"]} == set(NAMES)
    maps, record, printed = explained(capsys, "asked", photo, *OWN, "--target", "Spall")
    assert_equal(maps, right["spall"])
    assert record["target"] == 2 and "class 2, spall" in printed


def test_a_function_of_the_users_prepares_photos(
    photo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Image.open(photo) as image:
        image.crop((0, 0, 96, 96)).save("square.png")
    given = ["square.png", *CRACK, "--preprocess", "nets.py:grey"]
    maps, record, _ = explained(capsys, "prepared", *given)
    assert record["subject"]["preprocess"] == "nets.py:grey"
    assert_equal(maps, explained(capsys, "numbers", "square.png", *OWN)[0], ALIKE)
    line = refused(capsys, "explain", "square.png", *CRACK, "--preprocess", "nets.py:of_no_use")
    assert "nets.py:of_no_use: gave <class 'tuple'>; wanted a float tensor [C, H, W]" in line


def test_several_classes_and_methods_are_rows_of_one_sheet(
    right: dict[str, Maps], photo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--target", "predicted", "spall", "--methods", "naflow", "layercam"]
    given = ["explain", photo, *OWN, *asked, "--out", "several", "--save-arrays"]
    printed = run(capsys, *given)
    assert "written: several/0/rows.png, 4 rows" in printed
    place = Path("several", "0")
    names = {f"{t}_{m}" for t in ("predicted", "spall") for m in ("naflow", "layercam")}
    assert {p.name for p in place.iterdir()} == names | {"rows.png"}
    for target in ("predicted", "spall"):
        with np.load(place / f"{target}_naflow" / "maps.npz") as file:
            assert_equal(dict(file), right["" if target == "predicted" else target])
    run(capsys, *given)
    assert [p.name for p in Path("several").iterdir()] == ["0"]  # the same question, again
    run(capsys, "explain", photo, *OWN, "--out", "several")
    assert {p.name for p in Path("several").iterdir()} == {"0", "0-2"}


def test_photos_in_the_wrong_place_are_told(photo: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "explain", "photos/spall", *OWN)
    assert "photos/spall: is a folder; `naflow-fx batch photos/spall --out results`" in line
    with pytest.raises(SystemExit, match="2"):
        main(["explain", "--layers", "conv1", photo])
    assert f"--layers took {photo}: give photos before" in capsys.readouterr().err


def test_inspect_and_a_subject_as_a_file(
    right: dict[str, Maps], photo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    table = run(capsys, "inspect", *OWN, "--save-subject", "kept/crack.toml")
    assert "conv2" in table and "written: kept/crack.toml" in table
    assert 'weights = "../crack.pt"' in Path("kept", "crack.toml").read_text()
    kept = ["--subject", "kept/crack.toml"]
    maps, record, _ = explained(capsys, "from_file", photo, *kept, "--target", "spall")
    assert_equal(maps, right["spall"])
    assert record["subject"]["model"] == "kept/../nets.py:Crack"
    flow = nf.subject("kept/crack.toml").explain(photo, target="spall")
    assert_equal({n: m[0].numpy() for n, m in flow.maps.items()}, right["spall"])
    wide = ["--models", "new=nets.py:wide", "old=nets.py:Crack=crack.pt"]
    run(capsys, "report", photo, *kept, *wide, "--out", "wide.html")
    page = Path("wide.html").read_text()
    assert "spall" in page and "old, crack.pt" in page and "new, as made" in page
    other = nf.subject("kept/crack.toml", weights="none")
    assert other.facts["weights"] == "as made" and other.recipe is not None
    assert other.recipe.size == 96


def test_report(photo: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "report", photo, *OWN, "--out", "page.html", "--target", "<b>RUST</b>")
    page = Path("page.html").read_text()
    assert "<b>rust" not in page and "rust" in page and '"Crack"' in page


def test_a_network_is_named_once(photo: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "report", photo, *OWN, "--models", "resnet18")
    assert "--models and --model, --weights: give one of them" in line
    models = ["narrow=nets.py:Crack", "nets.py:Crack=crack.pt", "nets.py:wide"]
    run(capsys, "report", photo, *INPUT, "--models", *models, "--out", "models.html")
    page = Path("models.html").read_text()
    assert [name in page for name in ("narrow", "crack.pt", "wide", "narrower")] == [1, 1, 1, 0]


def test_batch(right: dict[str, Maps], capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow")
    given = ["--out", "rows", "--quiet", "--workers", "0", "--target", "spall"]
    run(capsys, "batch", "photos", *OWN, *given)
    results = nf.open_results("rows")
    assert results.class_names == NAMES
    assert_equal(
        {name: results.maps(name, raw=True)[0] for name in results.stored}, right["spall"], ALIKE
    )
    told = results.manifest["job"]["explainer"]
    assert told["model"] == "nets.py:Crack" and told["preprocessing"]["crop"] == 96
    run(capsys, "report", "rows", "--out", "rows.html")
    assert "<b>rust" not in Path("rows.html").read_text()


def test_several_targets_of_a_batch_are_folders_of_their_own(
    right: dict[str, Maps], photo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*OWN, "--workers", "0", "--target", "spall", "predicted", "--methods", "naflow",
             "layercam"]  # fmt: skip
    printed = run(capsys, "batch", "photos", *given, "--out", "by_target")
    assert "settling depth" in printed and "naflow-fx report by_target/spall_naflow" in printed
    names = {"spall_naflow", "predicted_naflow", "spall_layercam", "predicted_layercam"}
    assert {path.name for path in Path("by_target").iterdir()} == names
    maps = nf.open_results("by_target/spall_naflow").maps("relu_1", raw=True)[0]
    assert_equal({"relu_1": maps}, {"relu_1": right["spall"]["relu_1"]}, ALIKE)
    run(capsys, "diff", "by_target/spall_naflow", "by_target/predicted_naflow")
    run(capsys, "report", "by_target/spall_naflow", "--out", "several.html")
    page = Path("several.html").read_text()
    assert "settling depth" in page and "<b>scatter</b>" in page and "<b>agreement</b>" in page
    run(capsys, "decompose", photo, *OWN, "--layers", "relu", "--target", "spall", "crack",
        "--out", "trees")  # fmt: skip
    assert len(list(Path("trees").glob("*/*/decomposition.json"))) == 2


def test_from_python(right: dict[str, Maps], photo: str) -> None:
    subject = nf.subject("nets.py:Crack", weights="crack.pt", classes="names.txt", **NUMBERS)
    flow = subject.explain([photo, photo], target=["spall", "crack"])
    assert flow.target is not None and flow.target.tolist() == [2, 1]
    assert_equal({n: m[0].numpy() for n, m in flow.maps.items()}, right["spall"], ALIKE)
    first, second = flow.save("both")
    assert json.loads((first / "flow.json").read_text())["target_name"] == "spall"
    assert json.loads((second / "flow.json").read_text())["target_name"] == "crack"
    assert flow[1].save("one") == [Path("one")]
    assert flow.overlay()["pool"].shape[0] == 2
    assert "spall" in flow.save_html("flow.html").read_text()
    given = nf.Subject(subject.build(), preprocessing=subject.preprocessing, classes=NAMES)
    again = given.explain(photo, target="spall")
    assert_equal({n: m[0].numpy() for n, m in again.maps.items()}, right["spall"])
    with pytest.raises(TargetError, match=r"no class 'spal'; near: spall \(2\)"):
        given.explain(photo, target="spal")
    with pytest.raises(ModelError, match="4 names for 5 classes"):
        nf.Subject(subject.build(), preprocessing=subject.preprocessing, classes=NAMES[:4]).explain(
            photo
        )


def test_no_photo_is_told(right: dict[str, Maps]) -> None:
    subject = nf.subject("nets.py:Crack", weights="crack.pt", **NUMBERS)
    for ask in (subject.explain, subject.inputs):
        with pytest.raises(PhotoError, match="photos: got none; give one or several"):
            ask([])


def test_a_device_that_is_not_there_is_told(photo: str) -> None:
    pytest.importorskip("pyarrow")
    subject = nf.subject("nets.py:Crack", weights="crack.pt", **NUMBERS)
    network, image = subject.build(), subject.inputs([photo])
    for ask in (
        lambda device: subject.explain(photo, device=device),
        lambda device: subject.inputs([photo], device),
        lambda device: subject.example(device),
        lambda device: subject.build(device),
        lambda device: nf.explain_dataset(subject, "photos", "nowhere", device=device),
        lambda device: nf.quantus_explain_func(network, image, torch.tensor([0]), device=device),
    ):
        for device in ("abacus", "cuda:99"):
            with pytest.raises(NaflowError, match=f"^device='{device}': not to be had on this"):
                ask(device)
    assert not Path("nowhere").exists()


def test_workers_and_pairs(photo: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow")
    given = [*CRACK, "--preprocess", "nets.py:grey", "--layers", "relu_1"]
    run(capsys, "batch", "photos", *given, "--out", "by_workers", "--workers", "1", "--quiet")
    assert len(nf.open_results("by_workers")) == 3
    flow = nf.subject("nets.py:Crack", weights="crack.pt", preprocess="nets.py:grey").explain(
        photo, layers="relu_1"
    )
    row = nf.open_results("by_workers").maps("relu_1", raw=True)[0]
    assert_equal({"relu_1": row}, {"relu_1": flow.maps["relu_1"][0].numpy()}, ALIKE)
    run(capsys, "compare", photo, "photos/spall/1.png", *OWN, "--out", "pair")
    record = json.loads(Path("pair", "0-1", "flow.json").read_text())
    assert record["model"] == "Crack" and record["at"] == "penultimate"
    run(capsys, "decompose", photo, *OWN, "--layers", "relu_1", "--target", "spall", "--out", "why")
    assert "spall" in Path("why", "0", "decomposition.json").read_text()
