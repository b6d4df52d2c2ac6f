"""The sheet that compares images: a row of maps for each of them, the same call sites below."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from naflow_fx.view.sheet import (
    BAR_WIDTH,
    GAP,
    GREY,
    INK,
    LABEL,
    MARGIN,
    NAME,
    NARROWEST,
    PAPER,
    SUBTITLE,
    TITLE,
    Label,
    _check,
    _draw_bar,
    _draw_heading,
    _draw_label,
    _wrapped,
    shorten,
)

SIDE = 24  # width of the rows' names, which are written upwards
ONE_BAND = 7  # call sites that are shown in one band, however wide
SHAPE = 1.5  # width over height that several bands come near to


@dataclass(frozen=True)
class Bands:
    """Where things are on the sheet; all lengths in pixels."""

    cell: tuple[int, int]  # width, height of one picture
    columns: int  # call sites in one band
    bands: int
    rows: int
    header: int

    @property
    def band(self) -> int:
        """Height of one band: the rows, then the names of its call sites."""
        return self.rows * (self.cell[1] + GAP // 2) + LABEL

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the sheet."""
        width = 2 * MARGIN + SIDE + (self.columns + 1) * (self.cell[0] + GAP) - GAP
        return max(width, NARROWEST), self.header + self.bands * self.band + MARGIN // 2

    def corner(self, band: int, row: int, column: int) -> tuple[int, int]:
        """Left upper corner (x, y) of a picture; column 0 holds the photos."""
        return (
            MARGIN + SIDE + column * (self.cell[0] + GAP),
            self.header + band * self.band + row * (self.cell[1] + GAP // 2),
        )


def _bands(sites: int, rows: int, cell: tuple[int, int], columns: int | None, lines: int) -> Bands:
    """A layout for `sites` call sites, in one band if they are few, else about SHAPE."""
    header = max(MARGIN + TITLE + 12 + lines * (SUBTITLE + 6), MARGIN + 56) + 16

    def made(wanted: int) -> Bands:
        return Bands(cell, wanted, math.ceil(sites / wanted), rows, header)

    if columns is None and sites > ONE_BAND:
        choices = [made(c) for c in range(1, sites + 1)]
        best = min(choices, key=lambda b: abs(math.log(b.size[0] / b.size[1] / SHAPE)))
        return made(math.ceil(sites / best.bands))  # bands of equal length
    return made(columns or max(sites, 1))


def rows_grid(
    names: Sequence[str],
    photos: Sequence[Any],
    titles: Sequence[Label],
    overlays: Sequence[Sequence[Any]],
    *,
    title: str = "",
    subtitle: str = "",
    colormap: str = "inferno",
    legend: tuple[str, str] = ("0", "largest value of each map"),
    cell: int = 150,
    columns: int | None = None,
) -> Image.Image:
    """One sheet: row i is photo i and its maps, column j is one call site; in bands if many.

    names: of the rows, written upwards at their left. photos: RGB uint8 [H, W, 3], one a row.
    titles: for each call site its name, or (name, detail). overlays: [rows][call sites], RGB
    uint8 [H, W, 3], all drawn at the size of the first photo. title, subtitle: heading, the
    subtitle wrapped at " · ". legend: words at the colour bar's two ends. cell: longer side of a
    picture, pixels. columns: call sites in one band; None: all up to seven, more so that the sheet
    is about 3:2.
    Raises ValueError when counts, shapes or types do not fit.
    """
    if not len(names) == len(photos) == len(overlays) or not names:
        raise ValueError(f"Rows need a name, a photo and maps each: got {len(names)} names, "
                        f"{len(photos)} photos, {len(overlays)} rows of maps.")  # fmt: skip
    shown = _check(names, photos, cell)
    rows = [_check(titles, row, cell) if row else [] for row in overlays]
    height, width = shown[0].shape[:2]
    scale = cell / max(height, width)
    box = (max(1, round(width * scale)), max(1, round(height * scale)))
    trial = _bands(len(titles), len(names), box, columns, 1)
    room = trial.size[0] - 2 * MARGIN - BAR_WIDTH - 2 * GAP
    lines = _wrapped(subtitle, room, ImageFont.load_default(SUBTITLE))
    layout = _bands(len(titles), len(names), box, trial.columns, len(lines))
    sheet = Image.new("RGB", layout.size, PAPER)
    _draw_heading(sheet, title, lines, room)
    _draw_bar(sheet, colormap, legend)
    for band in range(layout.bands):
        _draw_band(sheet, layout, band, names, shown, titles, rows)
    return sheet


def _draw_band(
    sheet: Image.Image,
    layout: Bands,
    band: int,
    names: Sequence[str],
    photos: Sequence[Any],
    titles: Sequence[Label],
    rows: Sequence[Sequence[Any]],
) -> None:
    """Draw the photos again, the maps of this band's call sites and the sites' names."""
    sites = range(band * layout.columns, min((band + 1) * layout.columns, len(titles)))
    for row, name in enumerate(names):
        pictures = [photos[row], *(rows[row][site] for site in sites)]
        for column, picture in enumerate(pictures):
            _paste(sheet, picture, layout.corner(band, row, column), layout.cell)
        _draw_upwards(sheet, name, layout.corner(band, row, 0), layout.cell[1])
    draw = ImageDraw.Draw(sheet)
    for column, site in enumerate(sites, start=1):
        x, y = layout.corner(band, layout.rows, column)
        _draw_label(draw, (x, y - 2), layout.cell[0], titles[site], site + 1)


def _paste(sheet: Image.Image, picture: Any, at: tuple[int, int], cell: tuple[int, int]) -> None:
    sheet.paste(Image.fromarray(picture).resize(cell, Image.Resampling.LANCZOS), at)


def _draw_upwards(sheet: Image.Image, name: str, at: tuple[int, int], length: int) -> None:
    """Write a row's name from below upwards, left of its photo; what is behind " · " in grey."""
    font = ImageFont.load_default(NAME)
    strip = Image.new("RGB", (length, SIDE), PAPER)
    draw = ImageDraw.Draw(strip)
    text = shorten(name, length - 4, font)
    head, separator, rest = text.partition(" · ")
    width = font.getlength(text)
    left = (length - width) / 2
    draw.text((left, 2), head, fill=INK, font=font)
    draw.text((left + font.getlength(head), 2), separator + rest, fill=GREY, font=font)
    sheet.paste(strip.transpose(Image.Transpose.ROTATE_90), (at[0] - SIDE, at[1]))
