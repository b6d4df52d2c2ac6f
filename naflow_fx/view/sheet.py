"""Sheets of maps over photos: all call sites of one image in order, or a row an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont

from naflow_fx.view.colours import as_array, colour_table

MARGIN, GAP = 28, 14
TITLE, SUBTITLE, NAME, DETAIL = 24, 15, 14, 12  # font sizes, pixels
LABEL = 50  # height under a picture for its name and detail
BAR_WIDTH, BAR_HEIGHT = 200, 12
PAPER, INK, GREY = (255, 255, 255), (24, 24, 27), (105, 105, 115)
NARROWEST = 760  # width that title and colour bar need side by side
SIDE = 24  # width of the rows' names, which are written upwards
ONE_BAND = 7  # call sites that are shown in one band, however wide
SHAPE = 1.5  # width over height that several bands come near to
Label = str | tuple[str, str]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
font = cache(ImageFont.load_default)


class Column(NamedTuple):
    """What stands below each other: a picture a row, and their name and number, 0 for none."""

    label: Label
    number: int
    pictures: list[Image.Image]


@dataclass(frozen=True)
class Layout:
    """Where things are on a sheet: bands of rows of pictures, names below; lengths in pixels."""

    cell: tuple[int, int]  # width, height of one picture
    columns: int
    bands: int
    rows: int = 1  # of a band
    side: int = 0  # width of the rows' names
    gap: int = 0  # under a row
    drop: int = 4  # from there to the names
    lines: int = 1  # of the subtitle

    @property
    def header(self) -> int:
        """Height of title, subtitle and colour bar."""
        return max(MARGIN + TITLE + 12 + self.lines * (SUBTITLE + 6), MARGIN + 56) + 16

    @property
    def band(self) -> int:
        """Height of one band: the rows, then the names."""
        return self.rows * (self.cell[1] + self.gap) + LABEL

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the sheet."""
        width = 2 * MARGIN + self.side + self.columns * (self.cell[0] + GAP) - GAP
        return max(width, NARROWEST), self.header + self.bands * self.band + MARGIN // 2

    def corner(self, band: int, column: int, row: int = 0) -> tuple[int, int]:
        """Left upper corner (x, y) of a picture; of the row behind the last, of its name."""
        return (
            MARGIN + self.side + column * (self.cell[0] + GAP),
            self.header + band * self.band + row * (self.cell[1] + self.gap),
        )


def grid(
    photo: Any | None,
    titles: Sequence[Label],
    overlays: Sequence[Any],
    *,
    photo_label: Label = "photo",
    cell: int = 176,
    **heading: Any,
) -> Image.Image:
    """One sheet: the photo, then every overlay in order under its title, with a colour bar.

    photo: RGB uint8 [H, W, 3] array, tensor or PIL image; None leaves its place out.
    titles: for each overlay its call-site name, or (name, detail such as the map's size); names
    too long for their place lose their middle.
    overlays: RGB uint8 [H, W, 3], all drawn at the size of the first picture.
    heading: `title`, `subtitle`; the subtitle is wrapped at " · ".
    legend: words at the colour bar's two ends. cell: longer side of a picture,
    pixels (tall pictures are at least 0.7 of it wide).
    """
    columns = _columns(titles, [overlays])
    if photo is not None:
        columns.insert(0, Column(photo_label, 0, _images([photo])))
    box = _box(columns[0].pictures[0], cell, narrowest=0.7 * cell)  # tall ones keep room for names
    ideal = math.sqrt(1.5 * len(columns) * (box[1] + LABEL) / (box[0] + GAP))
    across = min(len(columns), math.ceil(ideal))
    bands = _split(columns, across)
    return _draw(Layout(box, across, len(bands)), bands, **heading)


def rows_grid(
    names: Sequence[str],
    photos: Sequence[Any],
    titles: Sequence[Label],
    overlays: Sequence[Sequence[Any]],
    *,
    cell: int = 150,
    columns: int | None = None,
    **heading: Any,
) -> Image.Image:
    """One sheet: row i is photo i and its maps, column j is one call site; in bands if many.

    names: of the rows, written upwards at their left. photos: RGB uint8 [H, W, 3], one a row.
    titles: for each call site its name, or (name, detail). overlays: [rows][call sites], RGB
    uint8 [H, W, 3], all drawn at the size of the first photo. title, subtitle: heading, the
    subtitle wrapped at " · ". legend: words at the colour bar's two ends. cell: longer side of a
    picture, pixels. columns: call sites in one band; None: all up to seven, more so that the sheet
    is about 3:2.
    """
    head, sites = Column("", 0, _images(photos)), _columns(titles, overlays)
    layout = _bands(len(sites), len(names), _box(head.pictures[0], cell), columns)
    bands = [[head, *part] for part in _split(sites, layout.columns - 1)]
    return _draw(layout, bands, names, **heading)


def _columns(titles: Sequence[Label], rows: Sequence[Sequence[Any]]) -> list[Column]:
    """A numbered column a title, its pictures from above."""
    pictures = zip(*map(_images, rows), strict=True)
    both = zip(titles, pictures, strict=True)
    return [Column(title, i, list(shown)) for i, (title, shown) in enumerate(both, start=1)]


def _split(columns: Sequence[Column], across: int) -> list[Sequence[Column]]:
    """Bands of so many columns each."""
    return [columns[start : start + across] for start in range(0, len(columns), across)]


def _draw(
    layout: Layout, bands: Sequence[Sequence[Column]], names: Sequence[str] = (), **heading: Any
) -> Image.Image:
    """The heading, and each band's rows of pictures: their names at the left, the sites' below."""
    sheet, layout = _begin(layout, **heading)
    for band, columns in enumerate(bands):
        for row, name in enumerate(names):
            _draw_upwards(sheet, name, layout.corner(band, 0, row), layout.cell[1])
        for place, column in enumerate(columns):
            for row, picture in enumerate(column.pictures):
                scaled = picture.resize(layout.cell, Image.Resampling.LANCZOS)
                sheet.paste(scaled, layout.corner(band, place, row))
            x, y = layout.corner(band, place, layout.rows)
            _draw_label(sheet, (x, y + layout.drop), layout.cell[0], column)
    return sheet


def _images(pictures: Sequence[Any]) -> list[Image.Image]:
    return [Image.fromarray(as_array(picture)) for picture in pictures]


def _box(picture: Image.Image, longest: int, narrowest: float = 0) -> tuple[int, int]:
    """Width and height at which a picture is drawn."""
    scale = max(longest / max(picture.size), narrowest / picture.width)
    return max(1, round(picture.width * scale)), max(1, round(picture.height * scale))


def _bands(sites: int, rows: int, cell: tuple[int, int], columns: int | None) -> Layout:
    """A layout for `sites` call sites, in one band if they are few, else about SHAPE."""

    def made(wanted: int) -> Layout:
        return Layout(cell, 1 + wanted, math.ceil(sites / wanted), rows, SIDE, GAP // 2, -2)

    if columns is None and sites > ONE_BAND:
        choices = [made(c) for c in range(1, sites + 1)]
        best = min(choices, key=lambda b: abs(math.log(b.size[0] / b.size[1] / SHAPE)))
        return made(math.ceil(sites / best.bands))  # bands of equal length
    return made(columns or max(sites, 1))


def _begin(
    layout: Layout,
    *,
    title: str = "",
    subtitle: str = "",
    colormap: str = "inferno",
    legend: tuple[str, str] = ("0", "largest value of each map"),
) -> tuple[Image.Image, Layout]:
    """A sheet with its heading and colour bar, and the layout with the subtitle's lines."""
    room = layout.size[0] - 2 * MARGIN - BAR_WIDTH - 2 * GAP
    lines = _wrapped(subtitle, room, font(SUBTITLE))
    layout = replace(layout, lines=len(lines))
    sheet = Image.new("RGB", layout.size, PAPER)
    write_text(sheet, (MARGIN, MARGIN - 4), title, TITLE, room)
    for number, line in enumerate(lines):
        y = MARGIN + TITLE + 8 + number * (SUBTITLE + 6)
        write_text(sheet, (MARGIN, y), line, SUBTITLE, room, GREY)
    _draw_bar(sheet, colormap, legend)
    return sheet, layout


def _draw_bar(sheet: Image.Image, colormap: str, legend: tuple[str, str]) -> None:
    """Draw the colour bar with its two ends named, in the right upper corner."""
    left, top = sheet.width - MARGIN - BAR_WIDTH, MARGIN + 4
    bar = Image.fromarray(colour_table(colormap)[None])
    sheet.paste(bar.resize((BAR_WIDTH, BAR_HEIGHT)), (left, top))
    draw, below = ImageDraw.Draw(sheet), top + BAR_HEIGHT + 5
    draw.rectangle((left - 1, top - 1, left + BAR_WIDTH, top + BAR_HEIGHT), outline=GREY)
    draw.text((left, below), legend[0], fill=GREY, font=font(DETAIL))
    draw.text((left + BAR_WIDTH, below), legend[1], fill=GREY, font=font(DETAIL), anchor="ra")


def _wrapped(text: str, width: float, font: Font) -> list[str]:
    """`text` in lines of at most `width` pixels, broken at its " · " separators."""
    lines: list[str] = []
    for part in text.split(" · ") if text else []:
        longer = f"{lines[-1]} · {part}" if lines else part
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(shorten(part, width, font))
    return lines


def shorten(text: str, width: float, font: Font) -> str:
    """`text`, with its middle replaced by an ellipsis until it is at most `width` pixels wide."""
    if font.getlength(text) <= width:
        return text
    cuts = (f"{text[: kept // 2]}…{text[len(text) - (kept + 1) // 2 :]}"
            for kept in range(len(text) - 1, 0, -1))  # fmt: skip
    return next((cut for cut in cuts if font.getlength(cut) <= width), "…")


def write_text(
    sheet: Image.Image,
    at: tuple[int, int],
    text: str,
    size: int,
    width: float,
    fill: tuple[int, int, int] = INK,
) -> None:
    """Write one line, shortened to `width`, with its left upper corner at (x, y); pixels."""
    line = shorten(text, width, font(size))
    ImageDraw.Draw(sheet).text(at, line, fill=fill, font=font(size))


def _draw_label(sheet: Image.Image, at: tuple[int, int], width: int, column: Column) -> None:
    """Write name and detail of a column, the detail after its number in the order."""
    label = column.label
    name, detail = label if isinstance(label, tuple) else (label, "")
    detail = " · ".join(filter(None, (str(column.number or ""), detail)))
    write_text(sheet, at, name, NAME, width)
    write_text(sheet, (at[0], at[1] + NAME + 3), detail, DETAIL, width, GREY)


def _draw_upwards(sheet: Image.Image, name: str, at: tuple[int, int], length: int) -> None:
    """Write a row's name from below upwards, left of its photo; what is behind " · " in grey."""
    strip = Image.new("RGB", (length, SIDE), PAPER)
    letters = font(NAME)
    text = shorten(name, length - 4, letters)
    head = text.partition(" · ")[0]
    left = (length - letters.getlength(text)) / 2
    draw = ImageDraw.Draw(strip)
    draw.text((left, 2), head, fill=INK, font=letters)
    behind = (left + letters.getlength(head), 2)
    draw.text(behind, text.removeprefix(head), fill=GREY, font=letters)
    sheet.paste(strip.transpose(Image.Transpose.ROTATE_90), (at[0] - SIDE, at[1]))


def side_by_side(pictures: Sequence[Image.Image], gap: int) -> Image.Image:
    """Pictures of one height in a row, white between them."""
    width = sum(picture.width + gap for picture in pictures) - gap
    row, left = Image.new("RGB", (width, pictures[0].height), PAPER), 0
    for picture in pictures:
        row.paste(picture, (left, 0))
        left += picture.width + gap
    return row
