"""What a decomposition gives: text, data, page, figure, command line."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import networkx as nx
import pytest
import torch
from PIL import Image
from shelf import hazard, hazard_images

import naflow_fx as nf
from naflow_fx.cli import main
from naflow_fx.decomposition.pictures import patch_box, unit_map

COFFEE = Path(__file__).resolve().parents[1] / "examples" / "coffee.png"
NASTY = '<img src=x onerror="alert(1)">'


@pytest.fixture(scope="module")
def found() -> nf.Decomposition:
    """A small tree, its decision called by a name that is markup."""
    model, x = hazard("in_place"), hazard_images("in_place", batch=1)
    return nf.decompose(model, x, target=1, top_k=2, class_names=["", NASTY])


def test_tree_and_shares(found: nf.Decomposition) -> None:
    assert nx.is_arborescence(found.tree) and found.target == 1 and found.name == NASTY
    for parent, child in found.tree.edges:
        above, below = found.tree.nodes[parent], found.tree.nodes[child]
        assert below["share"] == pytest.approx(below["evidence"] / above["evidence"])
        assert below["map"].min() >= 0 and below["map"].dim() == 2
        row, column = below["peak"]
        assert 0 <= row < below["map"].shape[0] and 0 <= column < below["map"].shape[1]
    assert found.tree.nodes["root"]["share"] == 1


def test_text_has_a_line_for_every_node_and_every_rest(found: nf.Decomposition) -> None:
    parents = [n for n, facts in found.tree.nodes(data=True) if "bias" in facts]
    lines = str(found).splitlines()
    assert len(lines) == len(found.tree) + 2 * len(parents)
    assert len(found.text(1).splitlines()) == 1 + found.tree.out_degree("root") + 2
    assert repr(found).startswith("Decomposition(")


def test_json_holds_the_tree(found: nf.Decomposition) -> None:
    data = json.loads(json.dumps(found.to_json()))
    one = data["tree"]["children"][0]
    assert data["layers"] == list(found.layers) and data["cost"]["forward"] == 1
    assert one["evidence"] == found.tree.nodes["1"]["evidence"]
    torch.testing.assert_close(torch.tensor(one["map"]).double(), found.tree.nodes["1"]["map"],
                               rtol=1e-6, atol=1e-7)  # fmt: skip


class Page(HTMLParser):
    """Counts tags, and keeps what could reach the network or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.risky: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            outside = name in ("src", "href") and not (value or "").startswith("data:")
            if outside or name.startswith("on"):
                self.risky.append(f"{tag} {name}={value}")


def test_page_is_safe_and_whole(found: nf.Decomposition, tmp_path: Path) -> None:
    text = found.save_html(tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    page = Page(text)
    parents = [n for n, facts in found.tree.nodes(data=True) if "bias" in facts]
    assert page.risky == [] and "script" not in page.tags
    assert page.tags.count("details") == page.tags.count("summary") == len(parents)
    assert page.tags.count("img") == len(found.tree)
    assert "default-src 'none'" in html.unescape(text) and not re.search(r"https?://", text)
    assert "&lt;img src=x" in text


def test_patch_lies_inside_the_photo_around_the_peak() -> None:
    assert patch_box((0, 6), (7, 7)) == pytest.approx((4 / 7, 0, 3 / 7, 3 / 7))
    left, top, width, height = patch_box((28, 10), (56, 56))
    assert (width, height) == (1 / 8, 1 / 8)
    assert left + width / 2 == pytest.approx(10.5 / 56)
    assert top + height / 2 == pytest.approx(28.5 / 56)
    assert patch_box((0, 0), (1, 1)) == (0, 0, 1, 1)
    assert unit_map(torch.zeros(2, 2)).max() == 0


def test_figure(found: nf.Decomposition, tmp_path: Path) -> None:
    figure = found.plot(Image.new("RGB", (40, 30), "navy"), rows=2)
    figure.savefig(tmp_path / "tree.png")
    words = " ".join(text.get_text() for text in figure.texts)
    assert f"channel {found.tree.nodes['1']['channel']}" in words
    assert len(figure.axes) == 1 + 2 + 2 * (len(found.layers) - 1)
    with pytest.raises(nf.NaflowError, match="rows=0"):
        found.plot(rows=0)


def test_an_image_of_twelve_channels_needs_a_photo(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(12, 4, 3), torch.nn.ReLU(),
                                torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())  # fmt: skip
    found = nf.decompose(model, torch.rand(12, 8, 8))
    with pytest.raises(nf.NaflowError, match="12 channels is no picture; give photo="):
        found.save_html(tmp_path / "page.html")
    found.save_html(tmp_path / "page.html", Image.new("RGB", (8, 8)))


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "out" / "coffee"
    line = ["decompose", str(COFFEE), "--out", str(tmp_path / "out"), "--top-k", "2"]
    assert main([*line, "--layers", "head_act", "blocks.14.add"]) == 0
    printed = capsys.readouterr().out
    assert "espresso" in printed and "head_act [1213]" in printed and "cost: 1 forward" in printed
    record = json.loads((place / "decomposition.json").read_text())
    assert record["target"] == 967 and record["layers"] == ["head_act", "blocks.14.add"]
    assert "<em>espresso</em>" in (place / "decomposition.html").read_text()
    assert main([*line, "--layers", "nothing"]) == 2
    assert "no call site is named nothing" in capsys.readouterr().err
