"""AttentionFlow.save: what is written, and that it is whole or not there at all."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_flow import NAMES, make_flow, photos
from torch import Tensor

from naflow_fx.errors import FlowError
from naflow_fx.view import save as flow_save
from naflow_fx.view.record import answer, details, headline, record_of


def read(folder: Path) -> Any:
    return json.loads((folder / "flow.json").read_text(encoding="utf-8"))


def pixels(file: Path) -> Any:
    with Image.open(file) as image:
        return np.array(image)


def every_file(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_save_one_image(tmp_path: Path) -> None:
    flow, seen = make_flow(1, norm_ratio={"conv1": torch.tensor([math.nan])}), list[str]()
    names = {3: "tiger"}
    folder = tmp_path / "deep" / "out"
    made = flow.save(folder, photos(1), title="cat.png", class_names=names, info={"model": "m"},
                     on_picture=seen.append)  # fmt: skip
    assert made == [folder] and seen == list(NAMES)
    maps = ["001_conv1", "002_layer1.0.relu_1", "003_layer1_odd_name", "004_fc"]
    files = {"grid.png", *(f"maps/{name}.png" for name in maps)}
    assert every_file(tmp_path) == {f"deep/out/{f}" for f in files | {"flow.json"}}
    record = read(folder)
    assert set(record["files"]) == files and record["model"] == "m"
    assert record["target"] == 3 and record["target_name"] == "tiger" and record["score"] == 0.5
    assert [layer["name"] for layer in record["layers"]] == list(NAMES)
    assert [layer["shape"] for layer in record["layers"]] == [[16, 12], [8, 6], [4, 3], []]
    first = record["layers"][0]
    assert first["norm_ratio"] is None and record["layers"][1]["norm_ratio"] is None
    assert first["sigma_max"] is None  # nothing was damped
    assert first["residual"] == pytest.approx(float(flow.residual["conv1"]))
    assert first["max"] == pytest.approx(float(flow.maps["conv1"].max()))
    assert sum(c["probability"] for c in record["top5"]) <= 1 and len(record["top5"]) == 5
    assert record["options"] == flow.options and record["input_size"] == [32, 24]
    assert {"python", "torch", "pillow"} <= record["versions"].keys()
    picture = pixels(folder / first["file"])
    np.testing.assert_array_equal(picture, flow.overlay(photos(1))["conv1"][0])


def test_some_layers_are_drawn_and_all_are_told(tmp_path: Path) -> None:
    flow = make_flow(1)
    flow.save(tmp_path, photos(1), layers=["fc", "layer1*"])
    drawn = [name for name in NAMES if name == "fc" or name.startswith("layer1")]
    record = read(tmp_path)
    assert [layer["name"] for layer in record["layers"]] == list(NAMES)
    assert [layer["name"] for layer in record["layers"] if layer["file"]] == drawn
    assert every_file(tmp_path) == {*record["files"], "flow.json"} and len(record["files"]) == 4
    with pytest.raises(FlowError, match="no call site is named nothing"):
        flow.save(tmp_path, photos(1), layers=["nothing"])


def test_a_name_is_no_glob(tmp_path: Path) -> None:
    flow = make_flow(1, maps=OrderedDict({"a[0]": torch.rand(1, 4, 4), "a0": torch.rand(1, 4, 4)}))
    flow.save(tmp_path, layers=["a[0]"])
    drawn = [layer["name"] for layer in read(tmp_path)["layers"] if layer["file"]]
    assert drawn == ["a[0]"]


def test_save_without_photos_and_for_a_batch(tmp_path: Path) -> None:
    flow = make_flow(target=torch.tensor([-1, 2]), output=None)
    made = flow.save(tmp_path / "out")
    assert made == [tmp_path / "out" / "000", tmp_path / "out" / "001"]
    assert [read(folder)["target"] for folder in made] == [None, 2]
    assert [read(folder)["score"] for folder in made] == [0.5, 1.5]
    assert read(made[0])["top5"] == []
    assert pixels(made[1] / "maps" / "001_conv1.png").shape == (32, 24, 3)
    assert not list(tmp_path.glob(".naflow-*"))


def test_photos_of_different_sizes_can_be_saved(tmp_path: Path) -> None:
    images = [photos(1, (64, 48))[0], photos(1, (20, 90))[0]]
    made = make_flow().save(tmp_path, images)
    sizes = [pixels(folder / "maps" / "004_fc.png").shape for folder in made]
    assert sizes == [(64, 48, 3), (20, 90, 3)]


def test_saving_again_leaves_nothing_old_and_keeps_others_files(tmp_path: Path) -> None:
    make_flow(1).save(tmp_path, photos(1))
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "maps" / "mine.png").write_text("mine")
    record = read(tmp_path)
    (tmp_path / "flow.json").write_text(json.dumps({**record, "files": [
        *record["files"], "notes.txt", "../notes.txt", "maps/mine.png", 7]}))  # fmt: skip
    smaller = make_flow(1, maps=OrderedDict(other=torch.rand(1, 4, 4)))
    smaller.save(tmp_path, photos(1))
    wanted = {"grid.png", "flow.json", "maps/001_other.png", "notes.txt", "maps/mine.png"}
    assert every_file(tmp_path) == wanted


@pytest.mark.parametrize("existing", [False, True])
def test_a_failure_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bool
) -> None:
    folder = tmp_path / "out"
    if existing:
        make_flow(1).save(folder)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    def fail(*args: Any, **options: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(flow_save, "grid", fail)
    with pytest.raises(OSError, match="No space"):
        make_flow(1).save(folder, photos(1))
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert folder.exists() == existing


def test_save_to_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    for place in (tmp_path / "taken", tmp_path / "taken" / "below"):
        with pytest.raises(FlowError, match="taken is a file, not a folder"):
            make_flow(1).save(place)


def test_flow_needs_no_gradient(tmp_path: Path) -> None:
    maps: OrderedDict[str, Tensor] = OrderedDict(a=torch.rand(1, 4, 4, requires_grad=True))
    make_flow(1, maps=maps, score=torch.ones(1, requires_grad=True)).save(tmp_path)
    assert (tmp_path / "grid.png").exists()


def test_headings_say_what_matters() -> None:
    flow = make_flow(1)
    record = record_of([flow], {"model": "net"}, answer(flow, {3: "tiger"}), {})
    assert details(record) == (
        "net · explained: class 3 tiger, score 0.5 · method naflow · damping 0.1 · steps 5"
    )
    flow.options["method"], flow.target = "layercam", None
    assert details(record_of([flow], {}, answer(flow, None), {})) == (
        "explained: a function of the output, score 0.5 · method layercam"
    )
    share = record["top5"][0]["probability"]
    assert headline(record) == f"class {record['top5'][0]['class']} {share:.1%}"
