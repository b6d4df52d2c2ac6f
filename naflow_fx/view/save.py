"""Writing a flow: a grid, one picture a call site and flow.json, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from naflow_fx.selection import choose
from naflow_fx.view.colours import Bytes, colourise, resize_map, show_on_image, write_png
from naflow_fx.view.files import plain_json, publish, staging
from naflow_fx.view.photos import as_photos
from naflow_fx.view.record import (
    ARRAYS,
    GRID,
    MAPS,
    RECORD,
    ClassNames,
    details,
    headline,
    is_ours,
    make_record,
    picture_names,
    shape_text,
)
from naflow_fx.view.sheet import Label, grid

if TYPE_CHECKING:
    from naflow_fx.flow.data import FlowData, Scale

THUMBNAIL = 512  # longest side of what goes into the grid, pixels
LEGENDS = {"map": "largest value of each map", "shared": "largest of all maps"}


@dataclass(frozen=True)
class Style:
    """How the pictures look and what is said beside them: arguments of `AttentionFlow.save`."""

    alpha: float
    colormap: str
    scale: Scale
    title: str | None
    class_names: ClassNames
    info: Mapping[str, Any]
    on_picture: Callable[[str], None] | None
    layers: Sequence[str] | None = None
    arrays: bool = False
    smooth: bool = True


def save_flow(flow: FlowData, folder: Path, images: Any, style: Style) -> list[Path]:
    """What `AttentionFlow.save` documents."""
    count = len(flow)
    photos: Sequence[Bytes | None] = [None] * count if images is None else as_photos(images, count)

    def write(i: int, place: Path) -> None:
        _write_sample(flow[i].detach().cpu(), photos[i], place, style)

    return save_each(folder, count, write)


def save_each(folder: Path, count: int, write: Callable[[int, Path], None]) -> list[Path]:
    """Write `count` samples, one to `folder` itself, several below it, whole or not at all.

    write: called with a sample's number and the new folder to write it into.
    """
    places = [Path()] if count == 1 else [Path(f"{i:03d}") for i in range(count)]
    with staging(folder) as stage:
        for i, place in enumerate(places):
            (stage / place / MAPS).mkdir(parents=True)
            write(i, stage / place)
        for place in places:
            publish(stage / place, folder / place, RECORD, is_ours)
    return [folder / place for place in places]


def finish(folder: Path, record: Mapping[str, Any], sheet: Image.Image) -> None:
    """Write the grid and flow.json of a sample."""
    write_png(sheet, folder / GRID)
    (folder / RECORD).write_text(plain_json(record), encoding="utf-8")


def _write_sample(flow: FlowData, photo: Bytes | None, folder: Path, style: Style) -> None:
    """Write all files of one image (a flow with N = 1) into the new `folder`."""
    files = picture_names(choose(list(flow.maps), style.layers))
    labels: list[Label] = []
    small: list[Image.Image] = []
    for name, picture in _pictures(flow, files, photo, style):
        write_png(Image.fromarray(picture), folder / files[name])
        empty = "" if flow.maps[name].any() else ", all zero"
        labels.append((name, shape_text(flow.maps[name]) + empty))
        small.append(thumbnail(picture, THUMBNAIL))
        if style.on_picture is not None:
            style.on_picture(name)
    if style.arrays:
        numbers: dict[str, Any] = {name: m[0].float().numpy() for name, m in flow.maps.items()}
        np.savez_compressed(folder / ARRAYS, **numbers)
    record = make_record(flow, style.class_names, style.info, files, style.arrays)
    finish(folder, record, _sheet(record, photo, labels, small, style))


def _pictures(
    flow: FlowData, names: Iterable[str], photo: Bytes | None, style: Style
) -> Iterator[tuple[str, Bytes]]:
    """Call site and picture, RGB uint8 [H, W, 3], one at a time: photos may be large."""
    maps = flow.drawable(style.scale)
    for name in names:
        if photo is None:
            height, width = flow.input_size
            yield (
                name,
                colourise(resize_map(maps[name][0], (height, width), style.smooth), style.colormap),
            )
        else:
            one = maps[name][0]
            yield name, show_on_image(photo, one, alpha=style.alpha, colormap=style.colormap,
                                      smooth=style.smooth)  # fmt: skip


def thumbnail(picture: Bytes, longest: int) -> Image.Image:
    """The picture, no larger than a sheet needs, pixels."""
    small = Image.fromarray(picture)
    small.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return small


def _sheet(
    record: Mapping[str, Any],
    photo: Bytes | None,
    labels: Sequence[Label],
    pictures: Sequence[Image.Image],
    style: Style,
) -> Image.Image:
    """The grid of one image with its headings."""
    every = len(record["layers"])
    few = f" · {len(pictures)} of {every} layers" if len(pictures) < every else ""
    return grid(
        None if photo is None else thumbnail(photo, THUMBNAIL),
        labels,
        pictures,
        title=" · ".join(part for part in (style.title, headline(record)) if part),
        subtitle=details(record) + few,
        photo_label=("photo", "" if photo is None else f"{photo.shape[0]} x {photo.shape[1]}"),
        colormap=style.colormap,
        legend=("0", LEGENDS[style.scale]),
    )
