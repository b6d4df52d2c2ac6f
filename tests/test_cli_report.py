"""`naflow-fx report`: one page of photos and models, and errors before any work."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from test_viewer import read

from naflow_fx.cli import main

PHOTOS = Path(__file__).parent.parent / "examples"
COFFEE = str(PHOTOS / "coffee.png")


def test_photos_of_one_name_stay_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other" / "coffee.png"
    other.parent.mkdir()
    shutil.copy(PHOTOS / "chelsea.png", other)
    out = tmp_path / "new" / "page.html"
    layers = ["head_act", "blocks.15.project_bn"]
    assert main(["report", COFFEE, str(other), "--out", str(out), "--layers", *layers,
                 "--target", "espresso", "--colormap", "viridis"]) == 0  # fmt: skip
    assert f"written: {out}" in capsys.readouterr().out
    page = read(out)
    assert [photo["name"] for photo in page["photos"]] == ["coffee.png", "coffee.png (2)"]
    assert page["colormap"] == "viridis"
    assert page["title"] == "coffee.png, coffee.png (2)"
    for entry in page["entries"]:
        assert entry["explained"] == "espresso"
        assert [one["name"] for one in entry["layers"]] == layers[::-1]
        assert all(one["abandoned"] is not None and one["held"] for one in entry["layers"])
    assert page["entries"][0]["top"][0]["name"] == "espresso"
    assert "cat" in page["entries"][1]["top"][0]["name"]
    assert page["models"][0]["graph"]["nodes"]


def test_a_small_page_of_another_method(tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    assert main(["report", COFFEE, "--out", str(out), "--layers", "head_act", "--small",
                 "--method", "gradcam", "--title", "Mine"]) == 0  # fmt: skip
    page = read(out)
    assert page["title"] == "Mine"
    (layer,) = page["entries"][0]["layers"]
    assert "held" not in layer
    assert layer["residual"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.png"], "nothing.png"),
        ([COFFEE, "--models", "efficientnet_lite9"], "efficientnet_lite0"),
        ([COFFEE, "--models", "efficientnet_lite0=nowhere.pt"], "nowhere.pt"),
        ([COFFEE, "--target", "espreso"], "espresso"),
        ([COFFEE, "--steps", "0"], "steps"),
        ([COFFEE, "--out", "."], "is a folder"),
        ([COFFEE, "--out", "page.txt"], "page.txt: wanted a name that ends in .html"),
    ],
)
def test_errors_are_one_line_and_nothing_is_written(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not list(tmp_path.iterdir())


def test_a_page_of_results_names_the_extra_that_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows" / "parts").mkdir(parents=True)
    (tmp_path / "rows" / "manifest.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert main(["report", str(tmp_path / "rows"), "--out", str(tmp_path / "x.html")]) == 2
    error = capsys.readouterr().err
    assert "needs pandas" in error and "pip install 'naflow-fx[batch]'" in error
