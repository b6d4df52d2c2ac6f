"""Colours, maps over photos and the sheet of all maps, checked pixel by pixel."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageFont

from naflow_fx.cli import options as parser
from naflow_fx.errors import FlowError
from naflow_fx.view.colours import (
    COLORMAPS,
    DIVERGING,
    colour_table,
    colourise,
    resize_map,
    show_on_image,
)
from naflow_fx.view.sheet import GAP, LABEL, MARGIN, grid, shorten


@pytest.mark.parametrize("name", [n for n in COLORMAPS if n != "gray"])
def test_colour_tables_are_matplotlibs(name: str) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    wanted = matplotlib.colormaps[name](np.linspace(0, 1, 256))[:, :3] * 255
    assert np.abs(colour_table(name) - wanted).max() <= 2.5


def test_colours_of_differences_are_matplotlibs() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    wanted = matplotlib.colormaps["RdBu_r"](np.linspace(0, 1, 256))[:, :3] * 255
    assert np.abs(DIVERGING - wanted).max() <= 2.5


@pytest.mark.parametrize("name", ["inferno", "magma", "viridis", "gray"])
def test_lightness_grows(name: str) -> None:
    luminance = colour_table(name).astype(float) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) > -0.75).all()  # rounding to 8 bits may step back a little
    assert luminance[-1] - luminance[0] > 150


def test_the_command_line_offers_these_colormaps() -> None:
    assert parser.COLORMAPS == COLORMAPS


def test_colourise_ends_and_shape() -> None:
    picture = colourise(np.array([[0.0, 1.0]]))
    assert picture.dtype == np.uint8 and picture.shape == (1, 2, 3)
    assert picture[0].tolist() == [[0, 0, 4], [252, 255, 164]]
    assert colourise(torch.tensor([0.5], dtype=torch.bfloat16), "gray").tolist() == [[128] * 3]
    assert colourise(np.array(0.0), "jet").tolist() == [0, 0, 128]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([[0.0, 1.2]], r"must lie in \[0, 1\], got 0 to 1.2"),
        ([[-0.1, 1.0]], "normalised"),
        ([[float("nan")]], "not finite"),
        ([], "empty"),
    ],
)
def test_colourise_refuses(values: Any, words: str) -> None:
    with pytest.raises(FlowError, match=words):
        colourise(np.array(values))


def test_unknown_colormap_lists_those_there_are() -> None:
    with pytest.raises(FlowError, match="'rainbow'.*'inferno', 'magma', 'viridis', 'jet', 'gray'"):
        colourise(np.zeros((2, 2)), "rainbow")


@pytest.mark.parametrize("size", [(7, 7), (3, 5), (1, 1)])
def test_enlarging_is_torchs_bicubic(size: tuple[int, int]) -> None:
    values = np.random.default_rng(0).random(size, dtype=np.float32)
    wanted = F.interpolate(
        torch.from_numpy(values)[None, None], size=(224, 160), mode="bicubic", antialias=True
    )
    found = resize_map(values, (224, 160))
    np.testing.assert_allclose(found, wanted[0, 0].clamp(0, 1).numpy(), atol=1e-5)


def test_cells_are_drawn_as_they_are() -> None:
    values = np.random.default_rng(0).random((3, 5), dtype=np.float32)
    cells = resize_map(values, (12, 20), smooth=False)
    np.testing.assert_array_equal(cells, values.repeat(4, 0).repeat(4, 1))
    photo = np.zeros((12, 20, 3), np.uint8)
    drawn = show_on_image(photo, values, alpha=1.0, smooth=False)
    np.testing.assert_array_equal(drawn, colourise(cells))


def test_shrinking_keeps_a_single_peak() -> None:
    values = np.zeros((64, 64), dtype=np.float32)
    values[33, 33] = 1
    assert resize_map(values, (8, 8)).max() > 0


def test_show_on_image_mixes() -> None:
    image = np.full((2, 2, 3), 200, dtype=np.uint8)
    mixed = show_on_image(image, np.array([[0, 1], [0, 1.0]]), alpha=0.25, colormap="gray")
    assert mixed.dtype == np.uint8
    assert mixed[:, 0].tolist() == [[150] * 3] * 2  # 0.75 * 200
    assert mixed[:, 1].tolist() == [[214] * 3] * 2  # + 0.25 * 255 = 213.75
    np.testing.assert_array_equal(show_on_image(image, np.ones((2, 2)), alpha=0), image)


def test_show_on_image_takes_every_form_of_a_photo() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    attention = np.random.default_rng(2).random((3, 4))
    wanted = show_on_image(pixels, attention)
    assert wanted.shape == (6, 8, 3)
    for form in (
        Image.fromarray(pixels),
        torch.from_numpy(pixels),
        pixels / 255,
        torch.from_numpy(pixels).double() / 255,
    ):
        np.testing.assert_array_equal(show_on_image(form, torch.from_numpy(attention)), wanted)
    assert show_on_image(pixels[..., 0], attention).shape == (6, 8, 3)


@pytest.mark.parametrize(
    ("image", "attention", "alpha", "words"),
    [
        (np.zeros((3, 8, 8), np.uint8), np.zeros((8, 8)), 0.5, r"permute\(1, 2, 0\)"),
        (np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8)), 0.5, r"\(8, 8, 4\)"),
        (np.zeros((8, 8, 3), np.int64), np.zeros((8, 8)), 0.5, "can't be int64"),
        (np.full((8, 8, 3), 255.0), np.zeros((8, 8)), 0.5, "image / 255"),
        (np.zeros((8, 8, 3), np.uint8), np.zeros((1, 8, 8)), 0.5, r"\[H, W\], got \(1, 8, 8\)"),
        (np.zeros((8, 8, 3), np.uint8), np.full((8, 8), 3.0), 0.5, "0, 1"),
        (np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8)), 1.5, "alpha.*1.5"),
    ],
)
def test_show_on_image_refuses(image: Any, attention: Any, alpha: float, words: str) -> None:
    with pytest.raises(FlowError, match=words):
        show_on_image(image, attention, alpha=alpha)


def solid(colour: tuple[int, int, int], size: tuple[int, int] = (224, 224)) -> Image.Image:
    return Image.new("RGB", size, colour)


def middle(sheet: Image.Image, index: int, columns: int, cell: tuple[int, int], top: int) -> Any:
    row, column = divmod(index, columns)
    x = MARGIN + column * (cell[0] + GAP) + cell[0] // 2
    return sheet.getpixel((x, top + row * (cell[1] + LABEL) + cell[1] // 2))


@pytest.mark.parametrize("count", [1, 4, 50, 57, 155])
def test_grid_shows_photo_then_every_map_in_order(count: int) -> None:
    colours = [(i, 255 - i, 90) for i in range(count)]
    sheet = grid(solid((1, 2, 3)), [f"site{i}" for i in range(count)], [solid(c) for c in colours])
    pixels = np.asarray(sheet)
    top = int(np.argmax((pixels == (1, 2, 3)).all(2).any(1)))
    starts = (pixels[top + 5, :-1] == 255).all(1) & (pixels[top + 5, 1:] != 255).any(1)
    columns = int(starts.sum())
    found = [middle(sheet, i, columns, (176, 176), top) for i in range(count + 1)]
    assert found == [(1, 2, 3), *colours]
    if count >= 50:
        assert 1.2 < sheet.width / sheet.height < 1.8


@pytest.mark.parametrize("size", [(224, 224), (600, 400), (100, 300), (40, 400)])
def test_nothing_is_clipped_at_the_edges(size: tuple[int, int]) -> None:
    names = [f"features.denseblock4.denselayer{i}.norm{i}" for i in range(23)]
    sheet = grid(
        solid((9, 9, 9), size),
        [(name, "112 x 112") for name in names],
        [solid((i, 50, 60), size) for i in range(23)],
        title="a photo with a name that is far too long to be shown in one line " * 4,
        subtitle=" · ".join(["an option with its value"] * 30),
    )
    pixels = np.asarray(sheet)
    for edge in (pixels[:8], pixels[-8:], pixels[:, : MARGIN - 4], pixels[:, -MARGIN + 2 :]):
        assert (edge == 255).all()


def test_heading_and_colour_bar_do_not_touch() -> None:
    sheet = grid(solid((9, 9, 9)), [], [], title="W" * 300, subtitle="W" * 300, colormap="jet")
    pixels = np.asarray(sheet)
    bar = sheet.width - MARGIN - 200
    assert (pixels[:80, bar - 20 : bar - 2] == 255).all()
    row = pixels[MARGIN + 8]
    assert abs(int(row[bar, 2]) - 128) < 4 and abs(int(row[bar + 199, 0]) - 128) < 4
    assert row[bar, :2].tolist() == row[bar + 199, 1:].tolist() == [0, 0]


def test_names_lose_their_middle_only_when_too_long() -> None:
    font = ImageFont.load_default(14)
    assert shorten("conv1", 176, font) == "conv1"
    name = "features.denseblock4.denselayer16.norm1"
    short = shorten(name, 176, font)
    assert font.getlength(short) <= 176 < font.getlength(name)
    head, tail = short.split("…")
    assert name.startswith(head) and name.endswith(tail) and len(head) > 5 and len(tail) > 5
    assert shorten(name, 1, font) == "…"


def test_no_matplotlib_is_imported() -> None:
    code = (
        "import sys, naflow_fx.view.sheet as r, naflow_fx.flow; r.grid(None, ['a'], "
        "[__import__('numpy').zeros((4, 4, 3), 'uint8')]); sys.exit('matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
