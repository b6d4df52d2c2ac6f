"""Writing a flow: a grid, a picture a call site and flow.json, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from naflow_fx.selection import choose
from naflow_fx.view.colours import Bytes, drawn, write_png
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
from naflow_fx.view.sheet import Label, grid, side_by_side

if TYPE_CHECKING:
    from naflow_fx.flow.data import FlowData, Scale

IN_GRID = 512  # longest side of what goes into the grid, pixels
GUTTER = 8  # pixels between the images of one picture
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


def _write_sample(flow: FlowData, photo: Bytes | None, folder: Path, style: Style) -> None:
    """Write all files of one image (a flow with N = 1) into the new `folder`."""
    files = picture_names(choose(list(flow.maps), style.layers))
    labels, (pictures,) = write_maps([flow], [photo], files, folder, style, IN_GRID)
    if style.arrays:
        numbers: dict[str, Any] = {name: m[0].float().numpy() for name, m in flow.maps.items()}
        np.savez_compressed(folder / ARRAYS, **numbers)
    record = make_record(flow, style.class_names, style.info, files, style.arrays)
    few = f" · {len(files)} of {len(flow.maps)} layers" if len(files) < len(flow.maps) else ""
    sheet = grid(
        None if photo is None else thumbnail(photo, IN_GRID),
        labels,
        pictures,
        photo_label=("photo", "" if photo is None else f"{photo.shape[0]} x {photo.shape[1]}"),
        subtitle=details(record) + few,
        **heading(style, headline(record)),
    )
    finish(folder, record, sheet)


def write_maps(
    flows: Sequence[FlowData],
    photos: Sequence[Bytes | None],
    files: Mapping[str, str],
    folder: Path,
    style: Style,
    longest: int,
) -> tuple[list[Label], list[list[Image.Image]]]:
    """Write the picture of each call site; gives the labels, and of each image the small pictures.

    One call site at a time: photos may be large.
    """
    maps = [flow.drawable(style.scale) for flow in flows]
    labels: list[Label] = []
    rows: list[list[Image.Image]] = [[] for _ in flows]
    look = (style.alpha, style.colormap, style.smooth)
    for name, file in files.items():
        pictures = [
            drawn(photo, planes[name][0], flow.input_size, *look)
            for flow, photo, planes in zip(flows, photos, maps, strict=True)
        ]
        write_png(_beside(pictures), folder / file)
        for row, picture in zip(rows, pictures, strict=True):
            row.append(thumbnail(picture, longest))
        empty = "" if any(flow.maps[name].any() for flow in flows) else ", all zero"
        labels.append((name, shape_text(flows[0].maps[name]) + empty))
        if style.on_picture is not None:
            style.on_picture(name)
    return labels, rows


def _beside(pictures: Iterable[Bytes]) -> Image.Image:
    """The pictures side by side at the first one's height, a white gutter between them."""
    first, *others = map(Image.fromarray, pictures)
    scaled = [p.resize((max(1, round(p.width * first.height / p.height)), first.height))
              for p in others]  # fmt: skip
    return side_by_side([first, *scaled], GUTTER)


def thumbnail(picture: Bytes, longest: int) -> Image.Image:
    """The picture, no larger than a sheet needs, pixels."""
    small = Image.fromarray(picture)
    small.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return small


def heading(style: Style, found: str) -> dict[str, Any]:
    """What both sheets are told of the style; the title is followed by what was found."""
    title = " · ".join(part for part in (style.title, found) if part)
    return {"title": title, "colormap": style.colormap, "legend": ("0", LEGENDS[style.scale])}


def finish(folder: Path, record: Mapping[str, Any], sheet: Image.Image) -> None:
    """Write the grid and flow.json of a sample."""
    write_png(sheet, folder / GRID)
    (folder / RECORD).write_text(plain_json(record), encoding="utf-8")
