"""compare, retrieve and few-shot: what they write and print, and what they refuse."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageOps
from shelf import fill
from test_cli import COFFEE, names_in, out
from test_cli_errors import error_of
from torch import Tensor, nn

import naflow_fx as nf
from naflow_fx import models
from naflow_fx.cli import main
from naflow_fx.errors import InputError
from naflow_fx.models.card import ModelCard
from naflow_fx.models.preprocess import Preprocessing, open_photo

__all__ = ["out"]  # fixture
SIDE = 24
COLOURS = {"red": (220, 40, 30), "green": (30, 200, 60), "blue": (40, 50, 230)}
COMPARED = {"grid.png", "flow.json", "maps/001_x.png", "maps/002_conv.png", "maps/003_relu.png"}


class Small(nn.Module):
    """A classifier of three call sites; without `classes`, an encoder."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 8, 3), nn.ReLU()
        self.fc = nn.Linear(8, classes) if classes else nn.Identity()
        fill(self)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(self.relu(self.conv(x)).mean((2, 3)))
        return y


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Every model's name builds a `Small`; what it was asked for. Not with the mark `slow`."""
    asked: dict[str, Any] = {"classes": 5}

    def card(name: str, weights: Any = None) -> ModelCard:
        preprocessing = Preprocessing(SIDE, SIDE)
        return ModelCard(name, "", ("W",), "", preprocessing, asked["classes"], "")

    def build(name: str, **options: Any) -> nn.Module:
        asked.update(name=name, **options)
        model = Small(asked["classes"]).eval()
        if name == "dead":
            nn.init.zeros_(model.conv.weight)
            model.conv.bias = None
        return model

    asked["undo"] = monkeypatch
    monkeypatch.setattr(models, "card", card)
    monkeypatch.setattr(models, "build", build)
    return asked


@pytest.fixture
def photos(out: Path) -> Path:
    """A folder: red/a.png, red/b.png, green/a.jpg, ..., with what is no picture in between."""
    folder = out.parent / "photos"
    noise = random.Random(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for photo in ("a.png", "b.png"):
            image = Image.new("RGB", (40, 30), colour)
            for _ in range(300):
                at = noise.randrange(40), noise.randrange(30)
                image.putpixel(at, tuple(min(255, c + noise.randrange(60)) for c in colour))
            image.save(folder / name / photo)
    (folder / "red" / "notes.txt").write_text("no picture")
    (folder / "red" / ".hidden.png").write_text("no picture")
    (folder / "red" / "cut.png").write_bytes(COFFEE.read_bytes()[:5000])
    (folder / "empty").mkdir()
    return folder


def record_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "flow.json").read_text())
    return found


def similarity_of(model: nn.Module, first: Path, second: Path) -> float:
    images = [Preprocessing(SIDE, SIDE)(open_photo(path))[None] for path in (first, second)]
    with torch.no_grad():
        v = [model.relu(model.conv(x)).mean((2, 3)) for x in images]  # type: ignore[operator]
    return float(torch.cosine_similarity(*v))


@pytest.mark.parametrize(("classes", "at"), [(5, "penultimate"), (0, None)])
def test_compare(
    photos: Path, out: Path, small: Any, classes: int, at: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    small["classes"] = classes
    query, support = photos / "red" / "a.png", photos / "blue" / "b.png"
    assert main(["compare", str(query), str(support), "--out", str(out)]) == 0
    assert names_in(out) == {f"a-b/{name}" for name in COMPARED}
    record = record_of(out / "a-b")
    wanted = similarity_of(Small(classes), query, support)
    assert record["similarity"] == pytest.approx(wanted, abs=1e-5)
    assert record["at"] == at and record["metric"] == "cosine" and record["weights"] == "W"
    assert [photo["file"] for photo in record["photos"]] == ["a.png", "b.png"]
    assert [layer["name"] for layer in record["layers"]] == ["x", "conv", "relu"]
    assert all(len(layer["max"]) == 2 for layer in record["layers"])
    assert sum(abs(c["share"]) for c in record["contribution"]) == pytest.approx(1, abs=1e-5)
    printed = capsys.readouterr()
    assert printed.err == "" and f"a.png and b.png: cosine similarity {wanted:.4f}" in printed.out
    assert re.search(r"3 +relu +22 x 22 +0 +0 +1 +1", printed.out)
    with Image.open(out / "a-b" / "maps" / "003_relu.png") as image:
        assert image.size == (2 * 30 + 8, 30)  # both photos at their own resolution
    assert small["pretrained"] and small["name"] == "efficientnet_lite0"


def test_pairs_of_the_same_names_are_kept_apart(photos: Path, out: Path, small: Any) -> None:
    pairs = [(photos / "red" / "a.png", photos / "blue" / "b.png"),
             (photos / "blue" / "a.png", photos / "red" / "b.png")]  # fmt: skip
    for metric in ("cosine", "dot"):
        for first, second in pairs:
            argv = ["compare", str(first), str(second), "--out", str(out), "--metric", metric]
            assert main(argv) == main(argv) == 0
    assert {path.name for path in out.iterdir()} == {"a-b", "a-b-2", "a-b-3", "a-b-4"}
    assert [record_of(out / f"a-b{n}")["metric"] for n in ("", "-2", "-3")] == [
        "cosine", "cosine", "dot"
    ]  # fmt: skip


@pytest.mark.parametrize("asked", [[], ["--layers", "all"]])
def test_a_few_layers_are_drawn_unless_all_are_asked_for(
    asked: list[str],
    photos: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("naflow_fx.cli.setup.SHEET", 2)
    first = str(photos / "red" / "a.png")
    assert main(["compare", first, first, "--out", str(out), *asked]) == 0
    maps = {"maps/001_x.png", "maps/002_relu.png"}
    assert names_in(out / "a-a") == (COMPARED if asked else maps | {"grid.png", "flow.json"})
    assert [layer["name"] for layer in record_of(out / "a-a")["layers"]] == ["x", "conv", "relu"]
    few = "" if asked else " of 3; every one: --layers all"
    assert f"{3 if asked else 2} maps{few}\n" in capsys.readouterr().out


def test_options_reach_the_explainer(photos: Path, out: Path, small: Any) -> None:
    argv = "--layers conv --method hirescam --metric dot --at relu --pool mean --weights W"
    first = str(photos / "red" / "a.png")
    assert main(["compare", first, first, "--out", str(out), *argv.split()]) == 0
    record = record_of(out / "a-a")
    assert [layer["name"] for layer in record["layers"]] == ["conv"]
    assert record["options"]["method"] == "hirescam" and record["layers"][0]["residual"]
    assert (record["metric"], record["at"], record["pool"]) == ("dot", "relu", "mean")
    assert small["weights"] == "W" and not small["pretrained"]
    assert len(record["contribution"]) == 8


def test_retrieve(photos: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    query = photos / "green" / "a.png"
    assert main(["retrieve", str(query), str(photos), "--top-k", "2", "--out", str(out)]) == 0
    assert names_in(out) == {f"a/{rank}/{name}" for rank in (1, 2) for name in COMPARED}
    records = [record_of(out / "a" / str(rank)) for rank in (1, 2)]
    assert records[0]["hit"] == "green/b.png" and [r["rank"] for r in records] == [1, 2]
    others = [p for p in photos.glob("*/?.png") if p != query]
    values = sorted((similarity_of(Small(5), query, p) for p in others), reverse=True)
    assert [r["similarity"] for r in records] == pytest.approx(values[:2], abs=1e-5)
    printed = capsys.readouterr()
    assert re.fullmatch(r"naflow-fx: skipped: .*cut\.png: damaged[^\n]*\n", printed.err)
    assert "a.png: 2 of 5 pictures" in printed.out
    assert re.search(rf"1 +green/b\.png +{values[0]:.4f} +\S+a/1/grid\.png", printed.out)


def test_retrieve_gives_what_there_is(photos: Path, out: Path) -> None:
    folder = photos / "blue"
    assert main(["retrieve", str(folder / "a.png"), str(folder), "--out", str(out)]) == 0
    assert {path.name for path in (out / "a").iterdir()} == {"1"}


def test_several_methods_are_folders_of_their_own(photos: Path, small: Any) -> None:
    query, other = str(photos / "red" / "a.png"), str(photos / "red" / "b.png")
    both = ["--methods", "layercam", "gradcam"]
    inside = photos / "out"  # what one method has written is no photo for the next
    assert main(["compare", query, other, *both, "--out", str(inside / "two")]) == 0
    assert main(["retrieve", query, str(photos), *both, "--top-k", "9", "--out", str(inside)]) == 0
    assert {p.name for p in (inside / "two").iterdir()} == {"layercam", "gradcam"}
    hits = [
        [record_of(one)["hit"] for one in sorted((inside / method / "a").iterdir())]
        for method in both[1:]
    ]
    assert len(hits[0]) > 1 and hits[0] == hits[1]
    folder = inside / "episode"
    assert main(["few-shot", "--support", str(photos), "--query", query, *both, "--out",
                 str(folder)]) == 0  # fmt: skip
    assert {p.name for p in folder.iterdir()} == {"layercam", "gradcam"}


def test_earlier_results_are_no_photos(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(photos)
    (photos / "red" / "cut.png").unlink()
    for _ in range(2):
        assert main(["retrieve", "red/a.png", ".", "--top-k", "1"]) == 0
        assert "1 of 5 pictures" in capsys.readouterr().out
        assert main(["few-shot", "--support", ".", "--query", "red/a.png"]) == 0
    assert {path.name for path in (photos / "naflow_out").iterdir()} == {"a", "a-2"}
    assert list(record_of(photos / "naflow_out" / "a-2")["logits"]) == ["blue", "green", "red"]
    assert main(["retrieve", "red/a.png", "blue", "--out", "."]) == 0


def test_a_similarity_of_zero_is_told_and_not_explained(
    photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def orthogonal(*args: Any) -> Any:
        raise InputError("pairs [0]: the embeddings are orthogonal")

    monkeypatch.setattr("naflow_fx.pairs.explainer._refuse_zero", orthogonal)
    query = str(photos / "blue" / "a.png")
    assert main(["retrieve", query, str(photos / "green"), "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 2 and "a.png is not explained: pairs" in printed.err
    assert "2 of 2 pictures" in printed.out
    argv = ["few-shot", "--support", str(photos), "--query", query, "--out", str(out)]
    assert main(argv) == 0 and not out.exists()
    printed = capsys.readouterr()
    assert "a.png: blue" in printed.out and "written" not in printed.out
    assert "a.png with blue is not explained: pairs" in printed.err


def test_few_shot(photos: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    query = out.parent / "query.png"
    ImageOps.mirror(open_photo(photos / "blue" / "a.png")).save(query)
    (photos / "green" / "b.png").unlink()
    argv = ["few-shot", "--support", str(photos), "--query", str(query), str(query)]
    assert main([*argv, "--out", str(out), "--temperature", "4"]) == 0
    assert names_in(out) == {f"{n}/{name}" for n in ("query", "query-2") for name in COMPARED}
    record = record_of(out / "query")
    assert record["prediction"] == record["match"] == "blue" and record["images"] == 3
    assert record["logits"]["blue"] == pytest.approx(4 * record["similarity"], abs=1e-5)
    assert [photo["file"] for photo in record["photos"]] == ["query.png", "a.png", "b.png"]
    printed = capsys.readouterr()
    assert printed.err.count("skipped") == 1 and "query.png: blue" in printed.out
    assert re.search(r"green +1 of 1", printed.out) and re.search(r"red +2 of 3", printed.out)
    assert main([*argv[:-1], "--out", str(out), "--match", "green", "--shots", "1"]) == 0
    record = record_of(out / "query-3")
    assert (record["prediction"], record["match"], record["images"]) == ("blue", "green", 2)
    assert "query.png" in names_in(out.parent) and "compared with green" in capsys.readouterr().out


ERRORS = [
    (["compare", "A", "none.png"], "none.png: no such file"),
    (["compare", "none.png", "A"], "none.png: no such file"),
    (["compare", "A", "red/cut.png"], "cut.png: damaged"),
    (["compare", "A"], "required: SUPPORT"),
    (["compare", "A", "A", "--at", "rely"], "named rely (of 5). Did you mean: relu"),
    (["compare", "A", "A", "--metric", "angle"], "invalid choice: 'angle'"),
    (["compare", "A", "A", "--device", "nowhere"], "device='nowhere': not to be had"),
    (["compare", "A", "A", "--layers", "nothing"], "nothing"),
    (["compare", "A", "A", "--steps", "0"], "steps=0"),
    (["compare", "A", "A", "--out", "A"], "a.png is a file, not a folder"),
    (["compare", "A", "A", "--model", "dead"], "an embedding is all zero"),
    (["retrieve", "A", "none"], "none: no such folder"),
    (["retrieve", "A", "A"], "a.png: no such folder"),
    (["retrieve", "A", "empty"], "empty: no picture in it"),
    (["retrieve", "A", ".", "--top-k", "0"], "must be 1 or more, got 0"),
    (["few-shot", "--query", "A"], "required: --support"),
    (["few-shot", "--support", "red", "--query", "A"], "red: 0 folders with pictures"),
    (["few-shot", "--support", ".", "--query", "none.png"], "none.png: no such file"),
    (["few-shot", "--support", ".", "--query", "A", "--match", "reed"], "there are red"),
]


@pytest.mark.parametrize(("argv", "words"), ERRORS)
def test_errors_are_one_line_and_write_nothing(
    argv: list[str],
    words: str,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(photos)
    before = names_in(photos)
    assert words in error_of(capsys, *["red/a.png" if word == "A" else word for word in argv])
    assert names_in(photos) == before and not (photos / "naflow_out").exists()


def test_a_gallery_of_broken_files(
    photos: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "b.png"):
        (photos / "red" / name).write_text("no picture")
    query = str(photos / "blue" / "a.png")
    assert main(["retrieve", query, str(photos / "red"), "--out", str(out)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4 and "none of its 3 pictures can be used" in lines[-1]
    argv = ["few-shot", "--support", str(photos), "--query", query, "--out", str(out)]
    assert main([*argv, "--match", "red"]) == 2
    assert "red: none of its pictures can be used" in capsys.readouterr().err
    assert main(argv) == 0 and record_of(out / "a")["logits"].keys() == {"green", "blue"}


def test_ctrl_c_while_saving(
    photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*args: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("naflow_fx.view.pairs.rows_grid", stop)
    first = str(photos / "red" / "a.png")
    assert main(["compare", first, first, "--out", str(out)]) == 130
    assert "naflow-fx: interrupted" in capsys.readouterr().err
    assert not out.exists() and not list(out.parent.glob(".naflow*"))


@pytest.mark.parametrize(
    ("command", "usage"),
    [("compare", "QUERY SUPPORT"), ("retrieve", "QUERY GALLERY"), ("few-shot", "--support DIR")],
)
def test_help_is_readable(
    command: str, usage: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: naflow-fx {command} {usage}")
    assert "--metric" in printed and max(map(len, printed.splitlines())) <= 100


@pytest.mark.slow
def test_a_flipped_crop_finds_its_source(small: Any, tmp_path: Path) -> None:
    """The bundled network, 20 photos of scikit-image, crops of half of each side."""
    data = pytest.importorskip("skimage.data")
    small["undo"].undo()
    folder = Path(data.__file__).parent
    kinds = "astronaut brick camera cell chelsea clock_motion coffee coins color grass gravel horse"
    kinds += " hubble_deep_field ihc moon motorcycle_left page retina rocket text"
    photos = [open_photo(next(folder.glob(f"{name}.*g"))) for name in kinds.split()]
    preprocessing = models.card("efficientnet_lite0").preprocessing
    place, queries = random.Random(0), []
    for photo in photos:
        width, height = photo.width // 2, photo.height // 2
        left, top = place.randint(0, width), place.randint(0, height)
        crop = photo.crop((left, top, left + width, top + height))
        queries.append(preprocessing(ImageOps.mirror(crop)))
    found = nf.retrieve(
        models.build("efficientnet_lite0", pretrained=True),
        torch.stack(queries),
        torch.stack([preprocessing(photo) for photo in photos]),
        top_k=1,
        similarity=nf.Similarity(at="penultimate"),
    )
    assert found.index[:, 0].tolist() == list(range(20))


@pytest.mark.slow
def test_the_bundled_model_for_real(small: Any, out: Path) -> None:
    small["undo"].undo()
    crop = out.parent / "crop.png"
    with Image.open(COFFEE) as image:
        ImageOps.mirror(image.crop((100, 20, 500, 380))).save(crop)
    argv = ["retrieve", str(crop), str(COFFEE.parent), "--out", str(out), "--layers", "head_act"]
    assert main(argv) == 0
    first, second = (record_of(out / "crop" / rank) for rank in "12")
    assert first["hit"] == "coffee.png" and second["hit"] == "chelsea.png"
    assert first["similarity"] > 0.5 > second["similarity"] and first["at"] == "penultimate"
