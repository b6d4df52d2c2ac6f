"""Writing a flow: a grid, a picture a call site and flow.json, whole or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from naflow_fx.files import staging
from naflow_fx.flow.data import FlowData
from naflow_fx.selection import choose
from naflow_fx.view.colours import Bytes, write_png
from naflow_fx.view.photos import Style, known_photos, pictures, thumbnail
from naflow_fx.view.record import GRID, ClassNames, answer, details, headline, record_of, shape_text
from naflow_fx.view.sheet import Label, grid, side_by_side

RECORD, MAPS, ARRAYS = "flow.json", "maps", "maps.npz"
#: What is written beside the record.
OURS = re.compile(rf"{re.escape(GRID)}|{re.escape(ARRAYS)}|{MAPS}/\d{{3,}}_[A-Za-z0-9_.\-]*\.png")
IN_GRID = 512  # longest side of what goes into the grid, pixels
GUTTER = 8  # pixels between the images of one picture
LEGENDS = {"map": "largest value of each map", "shared": "largest of all maps"}


@dataclass(frozen=True, kw_only=True)
class SaveStyle(Style):
    """How the pictures look and what is said beside them: arguments of `AttentionFlow.save`."""

    title: str | None = None
    class_names: ClassNames = None
    info: Mapping[str, Any] = field(default_factory=dict)
    on_picture: Callable[[str], None] | None = None
    arrays: bool = False


def save_flow(flow: FlowData, folder: Path, images: Any, style: SaveStyle) -> list[Path]:
    """What `AttentionFlow.save` documents."""
    photos = known_photos(flow, images)

    def write(i: int, place: Path) -> None:
        _write_sample(flow[i].detach().cpu(), photos[i], place, style)

    return save_each(folder, len(flow), write)


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
            _publish(stage / place, folder / place)
    return [folder / place for place in places]


def _publish(stage: Path, folder: Path) -> None:
    """Move the files of `stage` to `folder`: one rename if that is new, else file by file.

    In a folder that exists, files that its flow.json lists and the new one does not are removed;
    files of others are left alone. flow.json goes last: what it lists is there.
    """
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        stage.rename(folder)
        return
    old, new = _listed(folder), _listed(stage)
    for name in [*new, RECORD]:
        (folder / name).parent.mkdir(exist_ok=True)
        (stage / name).replace(folder / name)
    for name in set(old).difference(new):
        (folder / name).unlink(missing_ok=True)


def _listed(folder: Path) -> list[str]:
    """The files of ours that a folder's flow.json says were written with it; [] without one."""
    try:
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))["files"]
        return [name for name in found if isinstance(name, str) and OURS.fullmatch(name)]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _write_sample(flow: FlowData, photo: Bytes | None, folder: Path, style: SaveStyle) -> None:
    """Write all files of one image (a flow with N = 1) into the new `folder`."""
    files, labels, (made,) = write_maps([flow], [photo], folder, style, IN_GRID)
    if style.arrays:
        numbers: dict[str, Any] = {name: m[0].float().numpy() for name, m in flow.maps.items()}
        np.savez_compressed(folder / ARRAYS, **numbers)
    found, more = answer(flow, style.class_names), [ARRAYS] * style.arrays
    record = record_of([flow], style.info, found, files, more)
    few = f" · {len(files)} of {len(flow.maps)} layers" if len(files) < len(flow.maps) else ""
    small, size = None, ""
    if photo is not None:
        small, size = thumbnail(photo, IN_GRID), f"{photo.shape[0]} x {photo.shape[1]}"
    sheet = grid(
        small,
        labels,
        made,
        photo_label=("photo", size),
        subtitle=details(record) + few,
        **heading(style, headline(record)),
    )
    finish(folder, record, sheet)


def write_maps(
    flows: Sequence[FlowData],
    photos: Sequence[Bytes | None],
    folder: Path,
    style: SaveStyle,
    longest: int,
) -> tuple[dict[str, str], list[Label], list[list[Image.Image]]]:
    """Write the picture of each call site, one at a time: photos may be large.

    Gives call site -> file, the labels, and of each image the small pictures.
    """
    files = _picture_names(choose(list(flows[0].maps), style.layers))
    labels: list[Label] = []
    rows: list[list[Image.Image]] = [[] for _ in flows]
    sides = [pictures(flow, [photo], style) for flow, photo in zip(flows, photos, strict=True)]
    for each in zip(*sides, strict=True):
        name, made = each[0][0], [one for _, (one,) in each]
        write_png(_beside(made), folder / files[name])
        for row, picture in zip(rows, made, strict=True):
            row.append(thumbnail(picture, longest))
        empty = "" if any(flow.maps[name].any() for flow in flows) else ", all zero"
        labels.append((name, shape_text(flows[0].maps[name]) + empty))
        if style.on_picture is not None:
            style.on_picture(name)
    return files, labels, rows


def _picture_names(names: Iterable[str]) -> dict[str, str]:
    """Call site -> file below the folder; the number keeps the order and makes names unique."""
    safe = {name: re.sub(r"[^A-Za-z0-9_.\-]+", "_", name)[:120] for name in names}
    return {name: f"{MAPS}/{i:03d}_{safe[name]}.png" for i, name in enumerate(safe, start=1)}


def _beside(made: Iterable[Bytes]) -> Image.Image:
    """The pictures side by side at the first one's height, a white gutter between them."""
    first, *others = map(Image.fromarray, made)
    scaled = [p.resize((max(1, round(p.width * first.height / p.height)), first.height))
              for p in others]  # fmt: skip
    return side_by_side([first, *scaled], GUTTER)


def heading(style: SaveStyle, found: str) -> dict[str, Any]:
    """What both sheets are told of the style; the title is followed by what was found."""
    title = " · ".join(part for part in (style.title, found) if part)
    return {"title": title, "colormap": style.colormap, "legend": ("0", LEGENDS[style.scale])}


def finish(folder: Path, record: Mapping[str, Any], sheet: Image.Image) -> None:
    """Write the sheet and flow.json of a sample; numbers that aren't finite are an error."""
    write_png(sheet, folder / GRID)
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    (folder / RECORD).write_text(text, encoding="utf-8")
