"""The page in a browser: what a person does there, with mouse and keys, wide and on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import PHONE, opened, started, until
from small_flow import Small, explained
from test_viewer import ATTACK, DETAILS, read

import naflow_fx as nf
from naflow_fx.cli import main

PHOTO = Path(__file__).parent.parent / "examples" / "coffee.png"
SHOWN, OVERLAY = ".now .site", ".overlay >> nth=0"


@pytest.fixture(scope="module")
def chrome() -> Iterator[Any]:
    with started() as browser:
        yield browser


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    explainer, flow, images = explained(keep=DETAILS)
    path = tmp_path_factory.mktemp("small") / "flow.html"
    return flow.save_html(
        path, images, explainer=explainer, photos=[ATTACK], model=ATTACK, class_names=[ATTACK] * 3
    )


def drawn(page: Any) -> np.ndarray[Any, Any]:
    """The pixels of the map over the first photo, [H, W, 4]."""
    pixels = page.evaluate(
        """() => { const c = document.querySelector(".overlay");
        return [c.height, c.width, [...c.getContext("2d").getImageData(0, 0, c.width, c.height).data]] }"""  # noqa: E501
    )
    return np.array(pixels[2], np.uint8).reshape(pixels[0], pixels[1], 4)


def drag(page: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draws from one place on the first photo to another; places as shares of its sides."""
    area = page.locator(".drawing").first.bounding_box()
    at = [(area["x"] + x * area["width"], area["y"] + y * area["height"]) for x, y in (start, end)]
    page.mouse.move(*at[0])
    page.mouse.down()
    page.mouse.move(*at[1], steps=4)
    page.mouse.up()


def test_z_is_shown_as_a_picture(chrome: Any, small: Path) -> None:
    layers = read(small)["entries"][0]["layers"]
    with opened(chrome, small) as (page, troubles):
        shown = page.locator(".plane img")
        assert shown.get_attribute("src") == layers[-1]["held"]
        page.keyboard.press("Home")
        page.get_by_alt_text(f"Z as a picture, layer {layers[0]['name']}").wait_for()
        assert shown.get_attribute("src") == layers[0]["held"]
        assert shown.evaluate("one => [one.naturalHeight, one.naturalWidth]") == [16, 20]
        assert troubles == []


@pytest.mark.slow
def test_the_bundled_model_on_the_bundled_photo(chrome: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    assert main(["report", str(PHOTO), "--out", str(path)]) == 0
    assert path.stat().st_size < 5e6
    layers = read(path)["entries"][0]["layers"]
    with opened(chrome, path) as (page, troubles):
        assert page.locator(SHOWN).inner_text() == layers[-1]["name"]
        play_through(page, [one["name"] for one in layers])
        drag(page, (0.25, 0.1), (0.75, 0.6))
        page.get_by_text("In the box").wait_for()
        page.keyboard.press("Home")
        page.locator('[data-box="forward of blocks.3"]').click()
        assert page.locator('[data-node="blocks_3_project_bn"]').count() == 1
        page.locator(".layer", has_text="depthwise_act").nth(3).click()
        name = page.locator(SHOWN).inner_text()
        page.get_by_role("button", name="Its inverse in the graph").click()
        until(page, "!!document.activeElement.dataset.node")
        node = page.locator(".node")
        assert "inverse" in node.locator(".kind").inner_text()
        assert name in node.locator("dl").inner_text()
        assert troubles == []


def play_through(page: Any, names: list[str]) -> None:
    """Plays from the first layer on, and checks that every layer has been shown, in order."""
    page.evaluate(
        """() => { const at = document.querySelector(".now"); window.seen = [];
        const note = () => window.seen.push(document.querySelector(".now .site").textContent);
        new MutationObserver(note).observe(at, { subtree: true, childList: true, characterData: true }) }"""  # noqa: E501
    )
    page.get_by_label("Speed").select_option("16")
    page.get_by_role("button", name="Play").click()
    until(page, "!!document.querySelector('[aria-label=Play]')", seconds=60)
    assert list(dict.fromkeys(page.evaluate("window.seen"))) == names


def test_the_map_is_drawn_as_show_on_image_draws_it(chrome: Any, small: Path) -> None:
    _, flow, images = explained()
    with opened(chrome, small) as (page, _):
        canvas = drawn(page)
        assert page.locator(OVERLAY).evaluate("one => one.style.opacity") == "0.5"
    wanted = flow.overlay(images, alpha=1.0)["layer1.1.relu_1"][0]
    assert canvas.shape[:2] == wanted.shape[:2]
    np.testing.assert_allclose(canvas[..., :3].astype(int), wanted.astype(int), atol=3)


def test_text_from_outside_does_nothing(chrome: Any, small: Path) -> None:
    with opened(chrome, small) as (page, troubles):
        assert ATTACK in page.locator(".card-head").inner_text()
        assert page.locator("img").count() == 2  # the photo, Z as a picture
        page.locator("body").evaluate(
            "body => body.insertAdjacentHTML('beforeend', '<img src=x onerror=alert(3)>')"
        )
        page.wait_for_timeout(200)
    assert not any("a dialog" in one or "http" in one[:5] for one in troubles)
    assert any("Content Security Policy" in one for one in troubles)  # the policy is at work


def test_keys(chrome: Any, small: Path) -> None:
    names = [one["name"] for one in read(small)["entries"][0]["layers"]]
    with opened(chrome, small) as (page, troubles):
        press, shown = page.keyboard.press, page.locator(SHOWN)
        page.get_by_label("Speed").select_option("1")  # a busy machine looks seconds later
        page.locator("h1").click()  # keys are the page's again
        for key, place in (("Home", 0), ("ArrowRight", 1), ("ArrowLeft", 0), ("ArrowLeft", 0),
                           ("End", -1), ("ArrowLeft", -2)):  # fmt: skip
            press(key)
            assert shown.inner_text() == names[place], key
        press("Home")
        press("Shift+ArrowRight")
        assert shown.inner_text() == "layer1.0.conv1"
        press("]")
        assert float(page.locator(OVERLAY).evaluate("one => one.style.opacity")) > 0.55
        press("c")
        assert page.get_by_label("Colours").input_value() == "magma"
        press("?")
        page.get_by_role("dialog", name="Keys").wait_for()
        press("Escape")
        assert not page.get_by_role("dialog", name="Keys").is_visible()
        press("Space")
        page.get_by_role("button", name="Pause").wait_for()
        press("Space")
        press("i")
        until(page, "!!document.activeElement.dataset.node")
        first = page.evaluate("document.activeElement.dataset.box")
        press("ArrowLeft")
        assert page.evaluate("document.activeElement.dataset.box") != first
        assert troubles == []


def test_the_box_measures_the_map(chrome: Any, small: Path) -> None:
    _, flow, _ = explained()
    with opened(chrome, small) as (page, troubles):
        for side, percent in (("right", 50), ("bottom", 25)):
            page.get_by_label(side, exact=True).fill(str(percent))
            page.keyboard.press("Enter")
        text = page.locator(".facts div", has_text="In the box").locator("dd").inner_text()
        plane = flow.maps["layer1.1.relu_1"][0]
        assert tuple(plane.shape) == (8, 10)
        share = float(plane[:2, :5].sum() / plane.sum())
        assert float(text.split()[0]) == pytest.approx(100 * share, abs=0.06)
        page.get_by_role("button", name="Clear").click()
        assert page.locator(".facts", has_text="In the box").count() == 0
        assert troubles == []


def test_blocks_fold_and_unfold(chrome: Any, small: Path) -> None:
    with opened(chrome, small) as (page, troubles):
        assert page.locator('[data-node="layer1_0_conv1"]').count() == 0
        page.locator('[data-box="forward of layer1.0"]').click()
        assert page.locator('[data-node="layer1_0_conv1"]').count() == 1
        page.locator('[data-node="layer1_0_conv1"]').click()
        assert page.locator(SHOWN).inner_text() == "layer1.0.conv1"
        page.get_by_role("button", name="Fold layer1.0").click()
        assert page.locator('[data-node="layer1_0_conv1"]').count() == 0
        page.get_by_role("button", name="Unfold all").click()
        assert page.locator("[data-folded]").count() == 0
        assert page.locator(".box.inverse").count() >= len(explained()[1].maps)
        assert troubles == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_has_no_sideways_scroll(chrome: Any, small: Path, scheme: str) -> None:
    with opened(
        chrome, small, viewport=PHONE, has_touch=True, is_mobile=True, color_scheme=scheme
    ) as (
        page,
        troubles,
    ):
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        colours = page.evaluate(
            "['backgroundColor', 'color'].map(one => getComputedStyle(document.body)[one])"
        )
        light = [sum(map(int, one[4:-1].split(","))) for one in colours]
        assert (light[0] > light[1]) == (scheme == "light")
        page.get_by_role("button", name="Previous layer").tap()
        assert page.locator(SHOWN).inner_text() == "layer1.1.add"
        assert troubles == []


def test_several_models_move_together(chrome: Any, tmp_path: Path) -> None:
    explainer, flow, images = explained(count=2)
    names = ["a.png", "b.png"]
    shallow = nf.compile(explainer_model(), images[:1], layers=["stem", "layer1.1.*"])
    entries = [
        nf.ReportEntry(flow, images, "whole", names, explainer),
        nf.ReportEntry(shallow(images), images, "part", names, shallow),
    ]
    path = nf.save_report(tmp_path / "both.html", entries)
    with opened(chrome, path) as (page, troubles):
        feet = page.locator(".card-foot .site")
        page.keyboard.press("Home")
        assert feet.all_inner_texts() == ["x", "stem", "x", "stem"]
        page.locator(".layer", has_text="bn1").nth(1).click()
        assert feet.all_inner_texts() == ["layer1.1.bn1"] * 4
        page.keyboard.press("n")
        assert page.locator(".card[data-current=true]").count() == 1
        assert page.locator(".layer").count() == len(shallow.layers)
        assert troubles == []


def explainer_model() -> torch.nn.Module:
    torch.manual_seed(0)
    return Small().eval()


def test_a_page_with_a_graph_alone(chrome: Any, tmp_path: Path) -> None:
    explainer, _, _ = explained()
    with opened(chrome, explainer.inspect().save(tmp_path / "graph.html")) as (page, troubles):
        page.get_by_role("button", name="Unfold all").click()
        page.locator('[data-node="stem"]').click()
        assert "stem" in page.locator(".node h3").inner_text()
        assert page.locator(".stage").count() == 0
        assert troubles == []


@pytest.mark.slow
def test_one_map_minus_another(chrome: Any, tmp_path: Path) -> None:
    _, flow, images = explained(count=2)
    entries = [nf.ReportEntry(flow[i], images[:1], name, ["a photo"])
               for i, name in enumerate(("first", "second"))]  # fmt: skip
    with opened(chrome, nf.save_report(tmp_path / "two.html", entries)) as (page, troubles):
        choice = page.locator(".look label", has_text="Minus").locator("select")
        choice.select_option(label="second, a photo")
        until(page, "() => document.querySelectorAll('.less').length === 1")
        assert "minus second" in page.locator(".less").inner_text()
        colours = drawn(page)
        red, blue = colours[..., 0].astype(int), colours[..., 2].astype(int)
        assert (red - blue).max() > 50 or (blue - red).max() > 50
        choice.select_option(label="nothing")
        until(page, "() => document.querySelectorAll('.less').length === 0")
        assert not troubles
