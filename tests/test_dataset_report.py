"""The page about a run, and the numbers on it."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dataset_tiny import draw_photos, picture, run

import naflow_fx as nf
from naflow_fx.cli import main
from naflow_fx.dataset import aggregate, curves
from naflow_fx.dataset.report import write_report
from naflow_fx.errors import DatasetError
from naflow_fx.view import html


class Elements(HTMLParser):
    """Names of elements and of their attributes, and all text."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [tag, *(f"{tag}[{name}]" for name, _ in attrs)]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("report")
    photos = draw_photos(place / "photos", 15)
    picture(5).save(photos / "<img onerror=alert(1)>.png")
    (photos / "<script>alert(2)<.jpg").write_bytes(b"no picture")
    run(photos, place / "out")
    return place / "out"


def test_the_page_holds_every_section_and_no_name_is_markup(results: Path) -> None:
    page = write_report(results, results.parent / "page.html").read_text("utf-8")
    seen = Elements()
    seen.feed(page)
    for words in ("attention flow of 16 photos", "Mean flow per class", "Along depth",
                  "The most unusual photos", "worst residuals", "could not be opened",
                  "<script>alert(2)<.jpg"):  # fmt: skip
        assert words in seen.text
    assert "script" not in seen.found and "img[onerror]" not in seen.found
    assert seen.found.count("img") > 16
    assert "http:" not in page and "https:" not in page


def test_the_page_of_an_unfinished_run_says_so(results: Path) -> None:
    part = results / "parts/part-000001.parquet"
    data = part.read_bytes()
    part.unlink()
    try:
        page = write_report(results, results.parent / "half.html").read_text("utf-8")
    finally:
        part.write_bytes(data)
    assert "8 photos are still to do." in page
    with pytest.raises(DatasetError, match="not a folder of results"):
        write_report(results.parent, results.parent / "none.html")


def test_a_page_of_results_takes_no_options_of_explaining(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = ["report", str(results), "--out", str(tmp_path / "page.html")]
    assert main([*page, "--title", "Mine", "--models", "resnet18"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "--models, --title: a page about" in line
    assert not list(tmp_path.iterdir())
    assert main(page) == 0


def test_the_page_of_a_list_shows_its_photos(tmp_path: Path) -> None:
    for i in range(8):
        picture(i).save(tmp_path / f"{i}.png")
    (tmp_path / "some.txt").write_text("".join(f"{i}.png\n" for i in range(8)))
    run(tmp_path / "some.txt", tmp_path / "out")
    page = write_report(tmp_path / "out", tmp_path / "page.html").read_text("utf-8")
    assert page.count("data:image/jpeg") == 8


def test_mean_maps_are_means(results: Path) -> None:
    found = nf.open_results(results)
    predicted = found.pandas()["prediction"].to_numpy()
    one = int(predicted[0])
    means = aggregate.mean_maps(found, ["first"], [one])
    np.testing.assert_allclose(
        means[one, "first"], found.maps("first")[predicted == one].astype(float).mean(0)
    )


def test_depth_curves_have_their_intervals() -> None:
    values = np.random.default_rng(0).normal([1.0, 5.0], [1.0, 2.0], (4000, 2))
    measured = pd.DataFrame(values, columns=["a", "b"]).assign(**{"<b>": np.nan})
    ((name, depth),) = aggregate.depths({"mean": measured, "residual": measured * np.nan}).items()
    np.testing.assert_allclose(depth["mean"][:2], [1, 5], atol=0.1)
    np.testing.assert_allclose(depth["error"][:2], 1.96 * np.array([1, 2]) / 4000**0.5, rtol=0.05)
    np.testing.assert_allclose(depth["high"][:2], [1 + 1.2816, 5 + 2 * 1.2816], atol=0.15)
    one = curves.curve(name, depth)
    macro = html._environment().get_template("curve.html").module.curve  # type: ignore[attr-defined]
    drawn = str(macro(one))
    assert ">&lt;b&gt;<" in drawn and "nan," not in drawn and ",nan" not in drawn
    assert len(one["mean"]) == 2 and len(one["interval"]) == 4


def test_the_odd_one_is_the_most_unusual() -> None:
    draw = np.random.default_rng(0)
    measures = {name: pd.DataFrame(draw.uniform(0.4, 0.6, (50, 3)), columns=["a", "b", "c"])
                for name in aggregate.UNUSUAL}  # fmt: skip
    measures["spread"].loc[17, "b"] = 5.0
    measures["max"].loc[17] = 50.0
    found = aggregate.unusual(measures, 3)
    assert len(found) == 3 and found.index[0] == 17
    assert {("max", "a"), ("spread", "b")} & set(found["where"][17])
    few = {name: values[:7] for name, values in measures.items()}
    assert aggregate.unusual(few, 3).empty


def test_the_worst_residuals_come_first() -> None:
    values = [[0.1, 0.95, 0.0, np.nan], [0.3, 0.99, 0.0, np.nan]]
    rows = aggregate.worst_residuals(pd.DataFrame(values, columns=list("abcd")), 5)
    assert [(row["layer"], row["poor"]) for row in rows] == [("b", 1.0), ("a", 0.0)]
    assert rows[1]["median"] == pytest.approx(0.2)


@pytest.mark.parametrize("low, high", [(0, 1), (0, 0.003), (-1, 30), (0.2, 97)])
def test_axes_have_round_ticks(low: float, high: float) -> None:
    ticks = curves._ticks(low, high, log=False)
    assert 3 <= len(ticks) <= 6
    assert all(low <= t <= high * (1 + 1e-9) for t in ticks)
    assert all(len(f"{t:.3g}") <= 6 for t in ticks)
