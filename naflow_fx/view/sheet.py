"""The sheet of all maps: a photo, then the map of every call site over it, in order, labelled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from naflow_fx.view.colours import as_array, colour_table

MARGIN, GAP = 28, 14
TITLE, SUBTITLE, NAME, DETAIL = 24, 15, 14, 12  # font sizes, pixels
LABEL = 50  # height under a picture for its name and detail
BAR_WIDTH, BAR_HEIGHT = 200, 12
PAPER, INK, GREY = (255, 255, 255), (24, 24, 27), (105, 105, 115)
NARROWEST = 760  # width that title and colour bar need side by side
Label = str | tuple[str, str]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Layout:
    """Where things are on the sheet; all lengths in pixels."""

    cell: tuple[int, int]  # width, height of one picture
    columns: int
    rows: int
    header: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the sheet."""
        width = 2 * MARGIN + self.columns * (self.cell[0] + GAP) - GAP
        height = self.header + self.rows * (self.cell[1] + LABEL) + MARGIN // 2
        return max(width, NARROWEST), height

    def corner(self, index: int) -> tuple[int, int]:
        """Left upper corner (x, y) of picture `index`."""
        row, column = divmod(index, self.columns)
        return (
            MARGIN + column * (self.cell[0] + GAP),
            self.header + row * (self.cell[1] + LABEL),
        )


def _layout(count: int, shape: tuple[int, ...], cell: int, lines: int) -> Layout:
    """A layout for `count` pictures of `shape` (H, W, 3), the sheet about 3:2."""
    height, width = shape[:2]
    scale = max(cell / max(height, width), 0.7 * cell / width)  # tall ones keep room for names
    box = (max(1, round(width * scale)), max(1, round(height * scale)))
    ideal = math.sqrt(1.5 * count * (box[1] + LABEL) / (box[0] + GAP))
    columns = max(1, min(count, math.ceil(ideal)))
    header = MARGIN + TITLE + 12 + lines * (SUBTITLE + 6) + 16
    header = max(header, MARGIN + 56 + 16)
    return Layout(box, columns, math.ceil(count / columns), header)


def shorten(text: str, width: float, font: Font) -> str:
    """`text`, with its middle replaced by an ellipsis until it is at most `width` pixels wide."""
    if font.getlength(text) <= width:
        return text
    low, high = 0, len(text) - 1
    while low < high:
        kept = (low + high + 1) // 2
        low, high = (kept, high) if font.getlength(_cut(text, kept)) <= width else (low, kept - 1)
    return _cut(text, low)


def _cut(text: str, kept: int) -> str:
    """The first and last letters of `text`, `kept` in all, the end favoured."""
    head = kept // 2
    return f"{text[:head]}…{text[len(text) - (kept - head) :]}"


def _draw_label(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], width: int, label: Label, order: int
) -> None:
    """Write name and detail of one picture, the detail after its number in the order."""
    name, detail = label if isinstance(label, tuple) else (label, "")
    detail = " · ".join(part for part in (str(order) if order else "", detail) if part)
    large, small = ImageFont.load_default(NAME), ImageFont.load_default(DETAIL)
    draw.text(at, shorten(name, width, large), fill=INK, font=large)
    draw.text((at[0], at[1] + NAME + 3), shorten(detail, width, small), fill=GREY, font=small)


def _draw_bar(sheet: Image.Image, colormap: str, legend: tuple[str, str]) -> None:
    """Draw the colour bar with its two ends named, in the right upper corner."""
    left, top = sheet.width - MARGIN - BAR_WIDTH, MARGIN + 4
    colours = np.repeat(colour_table(colormap)[None], BAR_HEIGHT, axis=0)
    bar = Image.fromarray(colours).resize((BAR_WIDTH, BAR_HEIGHT))
    sheet.paste(bar, (left, top))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(DETAIL)
    draw.rectangle((left - 1, top - 1, left + BAR_WIDTH, top + BAR_HEIGHT), outline=GREY)
    below = top + BAR_HEIGHT + 5
    draw.text((left, below), legend[0], fill=GREY, font=font)
    draw.text((left + BAR_WIDTH, below), legend[1], fill=GREY, font=font, anchor="ra")


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


def _check(titles: Sequence[Label], pictures: Sequence[Any], cell: int) -> list[Any]:
    """The pictures as arrays, all RGB uint8 and as many as the titles; ValueError otherwise."""
    if len(titles) != len(pictures):
        raise ValueError(f"A grid needs a title a picture: got {len(titles)} for {len(pictures)}.")
    if not pictures:
        raise ValueError("A grid needs a photo or at least one map.")
    if cell < 32:
        raise ValueError(f"cell must be at least 32 pixels, got {cell}.")
    arrays = [as_array(picture) for picture in pictures]
    wrong = {str((a.shape, str(a.dtype))) for a in arrays if not _is_rgb(a)}
    if wrong:
        raise ValueError(f"Pictures must be RGB uint8 [H, W, 3], got {', '.join(sorted(wrong))}.")
    return arrays


def _is_rgb(array: Any) -> bool:
    """Whether an array is RGB uint8 [H, W, 3]."""
    return bool(array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8)


def grid(
    photo: Any | None,
    titles: Sequence[Label],
    overlays: Sequence[Any],
    *,
    title: str = "",
    subtitle: str = "",
    photo_label: Label = "photo",
    colormap: str = "inferno",
    legend: tuple[str, str] = ("0", "largest value of each map"),
    cell: int = 176,
) -> Image.Image:
    """One sheet: the photo, then every overlay in order under its title, with a colour bar.

    photo: RGB uint8 [H, W, 3] array, tensor or PIL image; None leaves its place out.
    titles: for each overlay its call-site name, or (name, detail such as the map's size); names
    too long for their place lose their middle.
    overlays: RGB uint8 [H, W, 3], all drawn at the size of the first picture.
    title, subtitle: heading; the subtitle is wrapped at " · ".
    legend: words at the colour bar's two ends. cell: longer side of a picture,
    pixels (tall pictures are at least 0.7 of it wide).
    Raises FlowError when counts, shapes or types do not fit.
    """
    arrays = _check(titles, overlays, cell) if overlays or photo is None else []
    if photo is not None:
        arrays = [*_check([photo_label], [photo], cell), *arrays]
    labels = [photo_label, *titles] if photo is not None else list(titles)
    trial = _layout(len(arrays), arrays[0].shape, cell, 1)
    room = trial.size[0] - 2 * MARGIN - BAR_WIDTH - 2 * GAP
    lines = _wrapped(subtitle, room, ImageFont.load_default(SUBTITLE))
    layout = _layout(len(arrays), arrays[0].shape, cell, len(lines))
    sheet = Image.new("RGB", layout.size, PAPER)
    _draw_heading(sheet, title, lines, room)
    _draw_bar(sheet, colormap, legend)
    draw = ImageDraw.Draw(sheet)
    for index, (label, array) in enumerate(zip(labels, arrays, strict=True)):
        x, y = layout.corner(index)
        sheet.paste(Image.fromarray(array).resize(layout.cell, Image.Resampling.LANCZOS), (x, y))
        order = index if photo is not None else index + 1
        _draw_label(draw, (x, y + layout.cell[1] + 4), layout.cell[0], label, order)
    return sheet


def _draw_heading(sheet: Image.Image, title: str, lines: list[str], room: float) -> None:
    """Write the title and the lines under it."""
    draw = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(TITLE), ImageFont.load_default(SUBTITLE)
    draw.text((MARGIN, MARGIN - 4), shorten(title, room, large), fill=INK, font=large)
    for number, line in enumerate(lines):
        y = MARGIN + TITLE + 8 + number * (SUBTITLE + 6)
        draw.text((MARGIN, y), line, fill=GREY, font=small)
