"""Several targets and methods in one command: rows of a sheet, columns of a page."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_flow import NAMES, make_flow, photos
from test_viewer import read

from naflow_fx.cli import main
from naflow_fx.cli.variants import names_of, variants, words
from naflow_fx.errors import FlowError
from naflow_fx.view.comparison import comparison, difference
from naflow_fx.view.photos import Style

COFFEE = str(Path(__file__).parent.parent / "examples" / "coffee.png")
QUICK = ["--layers", "blocks.15.project_bn", "head_act"]


def test_every_target_by_every_method() -> None:
    args = Namespace(target=["predicted", "cat", "7"], methods=["naflow", "focused"], method=None)
    found = variants(args)
    assert len(found) == 6 and found[3].target is None
    alone = Namespace(target="cat", methods=None, method="naflow")
    assert found[1] == alone and words(alone) == {"target": "cat", "method": "naflow"}
    alone = Namespace(target=None, methods=None, method=None)
    assert variants(alone) == [alone] and words(alone)["target"] == "predicted"
    assert variants(Namespace(target=["cat", "cat"], methods=None, method="gradcam")) == [
        Namespace(target="cat", methods=None, method="gradcam")
    ]


def test_names_are_what_differs() -> None:
    def of(model: str, weights: str, method: str) -> dict[str, str]:
        return {"model": model, "weights": weights, "method": method}

    assert names_of([of("a", "", "naflow")]) == ["a"]
    assert names_of([of("a", "", "m"), of("b", "", "m")]) == ["a", "b"]
    assert names_of([of("a", "", "m"), of("a", "x.pt", "m")]) == ["default", "x.pt"]
    assert names_of([of("a", "x", "m"), of("b", "x", "n")]) == ["a, m", "b, n"]
    assert names_of([of("a", "", "m")] * 2) == ["a", "a (2)"]


def test_a_wrong_class_beside_the_predicted_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["explain", COFFEE, "--target", "predicted", "soup bowl", "--method", "hirescam",
             "--out", str(tmp_path), *QUICK]  # fmt: skip
    assert main(words) == 0 == main(words)
    place = tmp_path / "coffee"
    assert f"written: {place / 'rows.png'}" in capsys.readouterr().out
    records = [json.loads((place / name / "flow.json").read_text("utf-8"))
               for name in ("predicted", "soup_bowl")]  # fmt: skip
    assert [one["target_name"] for one in records] == ["espresso", "soup bowl"]
    with Image.open(place / "rows.png") as sheet:
        assert sheet.height > 3 * 150
    assert sorted(tmp_path.iterdir()) == [place]  # the same question again: the same folder
    assert main(["explain", COFFEE, "--target", "soup bowl", "--method", "hirescam",
                 "--out", str(tmp_path), *QUICK]) == 0  # fmt: skip
    alone = json.loads((tmp_path / "coffee-2" / "flow.json").read_text("utf-8"))
    assert alone["question"]["target"] == "soup bowl" and alone["score"] == records[1]["score"]


@pytest.mark.slow
def test_columns_of_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "page.html"
    assert main(["report", COFFEE, "--target", "predicted", "soup bowl", "--methods", "focused",
                 "gradcam", "--small", "--out", str(out), *QUICK]) == 0  # fmt: skip
    page = read(out)
    wanted = [f"{t}, {m}" for m in ("focused", "gradcam") for t in ("predicted", "soup bowl")]
    assert [page["models"][one["model"]]["name"] for one in page["entries"]] == wanted
    assert [one["explained"] for one in page["entries"]] == ["espresso", "soup bowl"] * 2
    assert all(one["layers"][-1]["agreement"] == pytest.approx(1) for one in page["entries"])
    assert main(["report", COFFEE, "--target", "predicted", "soup bowll"]) == 2
    assert "soup bowl" in capsys.readouterr().err


def test_a_difference_is_red_where_the_first_has_more() -> None:
    first, second = np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float32)
    first[0, 0] = second[1, 1] = 1.0
    grey = np.full((2, 2, 3), 128, np.uint8)
    made = difference(first, second, grey, alpha=1.0).astype(int)
    assert made[0, 0, 0] > made[0, 0, 2] and made[1, 1, 2] > made[1, 1, 0]
    assert np.ptp(made[0, 1]) <= 1 and made[0, 1].min() > 240
    back = difference(second, first, grey, alpha=1.0).astype(int)
    np.testing.assert_array_equal(back[0, 0], made[1, 1])


def test_a_sheet_has_the_layers_that_all_flows_have() -> None:
    flows = {"a": make_flow(1), "b": make_flow(1)}
    del flows["b"].maps["fc"]
    photo, some = photos(1)[0], Style(layers=list(NAMES[:3]))
    assert comparison(flows, photo, some, "title", "told").height > 3 * 150
    with pytest.raises(FlowError, match="no call site is named fc"):
        comparison(flows, photo, Style(), "title", "told")
