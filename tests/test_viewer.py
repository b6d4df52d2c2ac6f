"""The page: what goes into it, that nothing gets out of it, and that text stays text."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_flow import explained

import naflow_fx as nf
from naflow_fx.errors import FlowError
from naflow_fx.flow.data import About
from naflow_fx.view.page.record import _top_channels, make_report

ATTACK = '"><img src=x onerror=alert(1)></script><script>alert(2)</script><!--'
DETAILS = ("bpfm", "importance", "used")


def read(path: Path) -> dict[str, Any]:
    """What a page was given, as its own script reads it."""
    found = re.search(
        r'<script type="application/json" id="report">(.*?)</script>', path.read_text(), re.S
    )
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def picture(layer: dict[str, Any]) -> np.ndarray[Any, Any]:
    """The pixels of a layer's reconstruction, uint8 [H, W] or [H, W, 3]."""
    file = io.BytesIO(base64.b64decode(layer["held"].removeprefix("data:image/png;base64,")))
    return np.asarray(Image.open(file))


def test_a_flow_becomes_one_file_that_asks_for_nothing(tmp_path: Path) -> None:
    explainer, flow, images = explained()
    path = flow.save_html(tmp_path / "new" / "flow.html", images, explainer=explainer)
    text = path.read_text()
    assert not re.search(r"<(?:link|img|iframe|script)[^>]*(?:src|href)\s*=", text)
    found = re.search(r'Security-Policy" content="([^"]*)"', text)
    assert found
    policy = html.unescape(found[1])
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "connect-src" not in policy
    for tag, what in (("style", "style-src"), ("script", "script-src")):
        inside = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)
        assert len(inside) == 1
        digest = base64.b64encode(hashlib.sha256(inside[0].encode()).digest()).decode()
        assert f"{what} 'sha256-{digest}'" in policy


def test_maps_travel_at_their_resolution(tmp_path: Path) -> None:
    _, flow, images = explained()
    data = read(flow.save_html(tmp_path / "flow.html", images))
    layers = data["entries"][0]["layers"]
    assert [one["name"] for one in layers] == list(flow.maps)
    normalised = flow.normalised()
    for one in layers:
        name = one["name"]
        raw = np.frombuffer(base64.b64decode(one["map"]), "<f2").reshape(one["shape"])
        wanted = normalised[name][0].numpy()
        np.testing.assert_allclose(raw, wanted, atol=5e-4)
        assert one["max"] == pytest.approx(float(flow.maps[name].max()))
        assert one["residual"] == pytest.approx(float(flow.residual[name][0]))
        sigma = flow.sigma_max.get(name)
        assert one["sigma_max"] == (None if sigma is None else pytest.approx(float(sigma[0])))
    assert data["models"][0]["graph"] is None


def test_reconstruction_channels_and_abandoned_neurons_are_there_when_kept(tmp_path: Path) -> None:
    explainer, flow, images = explained(keep=DETAILS)
    data = read(flow.save_html(tmp_path / "flow.html", images, explainer=explainer))
    layer = next(one for one in data["entries"][0]["layers"] if one["name"] == "layer1.0.conv1")
    z, importance = flow.bpfm["layer1.0.conv1"][0], flow.importance["layer1.0.conv1"][0]
    sums = (importance * z).sum((1, 2))
    positive = [i for i in sums.argsort(descending=True).tolist() if sums[i] > 0][:4]
    assert [one["index"] for one in layer["channels"]] == positive
    assert layer["channels"][0]["share"] == pytest.approx(float(sums.max() / sums.clamp(0).sum()))
    held = flow.reconstruction()
    np.testing.assert_allclose(picture(layer), 255 * held["layer1.0.conv1"][0, 0], atol=0.51)
    first = picture(data["entries"][0]["layers"][0])
    np.testing.assert_allclose(first, 255 * held["x"][0].movedim(0, -1), atol=0.51)
    assert layer["abandoned"] == pytest.approx(float(flow.abandoned["layer1.0.conv1"][0]))
    nodes = data["models"][0]["graph"]["nodes"]
    made = explainer.inspect().to_dict()["nodes"]
    assert [node["id"] for node in nodes] == [node["id"] for node in made]


def test_evidence_may_be_smaller_than_float32_holds(tmp_path: Path) -> None:
    _, flow, images = explained(keep=DETAILS)
    tiny = replace(
        flow,
        importance={name: one * 2.0**-90 for name, one in flow.importance.items()},
        bpfm={name: one * 2.0**-50 for name, one in flow.bpfm.items()},
    )
    pages = [read(one.save_html(tmp_path / "flow.html", images)) for one in (flow, tiny)]
    layers, others = (page["entries"][0]["layers"] for page in pages)
    assert any(layer["channels"] for layer in layers if "channels" in layer)
    assert [one.get("channels") for one in layers] == [one.get("channels") for one in others]


def test_a_channel_may_be_far_weaker_than_the_strongest() -> None:
    weak = torch.zeros(2, 3, 3)
    weak[0, 0, 0], weak[1, 1, 1] = 1, 1e-42
    first, second = _top_channels(weak)
    assert (first["share"], second["index"]) == (1, 1) and 0 < second["share"] < 1e-41
    shown = np.frombuffer(base64.b64decode(second["map"]), np.uint8).reshape(second["shape"])
    assert shown[1, 1] == shown.sum() == 255


def test_a_flow_of_a_subject_brings_its_photos_and_names(tmp_path: Path) -> None:
    _, flow, images = explained(count=2)
    pictures = [Image.fromarray(np.full((16, 20, 3), i, np.uint8)) for i in range(2)]
    known = replace(flow, about=About(tuple(pictures), class_names=("a", "b", "c")))
    path = nf.save_report(tmp_path / "flow.html", [nf.ReportEntry([known[0], known[1]])])
    told = nf.save_report(
        tmp_path / "told.html", [nf.ReportEntry(flow, pictures, class_names=["a", "b", "c"])]
    )
    assert read(path) == read(told)


def test_a_large_reconstruction_is_made_smaller(tmp_path: Path) -> None:
    _, flow, images = explained(size=(16, 640), keep=("bpfm",))
    layers = read(flow.save_html(tmp_path / "flow.html", images))["entries"][0]["layers"]
    assert picture(layers[0]).shape == (3, 112, 3)


def test_names_are_text_wherever_they_come_from(tmp_path: Path) -> None:
    explainer, flow, images = explained()
    path = flow.save_html(
        tmp_path / "flow.html", images, explainer=explainer, photos=[ATTACK], model=ATTACK,
        class_names=[ATTACK] * 3, title=ATTACK,
    )  # fmt: skip
    text = path.read_text()
    assert ATTACK not in text
    assert "<img" not in text
    assert text.count("<script") == 3
    title = re.search("<title>(.*)</title>", text)
    assert title and "<" not in title[1] and html.unescape(title[1]) == ATTACK
    data = read(path)
    assert data["photos"][0]["name"] == data["models"][0]["name"] == data["title"] == ATTACK
    assert data["entries"][0]["explained"] == ATTACK


def test_models_of_a_photo_stand_side_by_side(tmp_path: Path) -> None:
    explainer, flow, images = explained(count=2)
    names = ["a.png", "b.png"]
    entries = [
        nf.ReportEntry(flow, images, "first", names, explainer),
        nf.ReportEntry([flow[0], flow[1]], images, "second", names),
    ]
    data = read(nf.save_report(tmp_path / "two.html", entries, title="Two"))
    shown = [
        (data["photos"][one["photo"]]["name"], data["models"][one["model"]]["name"])
        for one in data["entries"]
    ]
    assert shown == [("a.png", "first"), ("a.png", "second"), ("b.png", "first"),
                     ("b.png", "second")]  # fmt: skip
    assert data["entries"][2]["layers"] == data["entries"][3]["layers"]
    assert data["entries"][0]["layers"] != data["entries"][2]["layers"]


def test_a_graph_alone(tmp_path: Path) -> None:
    explainer, _, _ = explained()
    data = read(explainer.inspect().save(tmp_path / "graph.html"))
    assert data["entries"] == []
    assert {node["kind"] for node in data["models"][0]["graph"]["nodes"]} == {
        "forward", "capture", "importance", "inverse", "map",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"photos": ["one", "two"]}, "2 names for 1 images"),
        ({"colormap": "rainbow"}, "colormap='rainbow'.: wanted one of"),
        ({"alpha": 2.0}, "alpha=2.0.: wanted a number from 0 to 1"),
    ],
)
def test_what_does_not_fit_is_said_and_nothing_is_written(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    _, flow, images = explained()
    with pytest.raises(FlowError, match=message):
        flow.save_html(tmp_path / "flow.html", images, **change)
    assert not list(tmp_path.iterdir())


def test_a_report_of_nothing() -> None:
    with pytest.raises(FlowError, match="at least one entry"):
        make_report([], "", "inferno", 0.5)


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "flow.html"
    path.write_text("old")

    def full(source: object, target: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", full)
    _, flow, images = explained()
    with pytest.raises(OSError, match="disk full"):
        flow.save_html(path, images)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_notebooks_show_flows_and_explainers() -> None:
    explainer, flow, _ = explained(count=6)
    flow.maps["<b>"] = flow.maps.pop("layer1.1.relu_1")
    shown = flow._repr_html_()
    assert shown.count("<img") == 4 * 8
    assert "and 2 more images" in shown
    assert "<b>" not in shown
    assert "&lt;b&gt;" in shown
    pair = nf.PairFlow(flow[:1], flow[1:2], torch.tensor([0.5]), None)
    assert pair._repr_html_().count("<img") == 2 * 8
    table = explainer._repr_html_()
    assert table.count("<details>") >= 3
    assert all(html.escape(name) in table for name in explainer.layers)
