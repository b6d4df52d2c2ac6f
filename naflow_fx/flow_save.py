"""Writing an AttentionFlow: a grid, one picture a call site and flow.json, whole or not at all."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from .errors import FlowError
from .flow_images import as_photos
from .flow_record import (
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
from .render import Bytes, colourise, resize_map, show_on_image, write_png
from .render_grid import Label, grid
from .selection import choose

if TYPE_CHECKING:
    from .flow import AttentionFlow, Scale

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


def save_flow(flow: AttentionFlow, folder: Path, images: Any, style: Style) -> list[Path]:
    """What `AttentionFlow.save` documents."""
    count = len(flow)
    photos: Sequence[Bytes | None] = [None] * count if images is None else as_photos(images, count)
    places = [Path()] if count == 1 else [Path(f"{i:03d}") for i in range(count)]
    with staging(folder) as stage:
        for one, photo, place in zip(flow, photos, places, strict=True):
            _write_sample(one.detach().cpu(), photo, stage / place, style)
        for place in places:
            publish(stage / place, folder / place)
    return [folder / place for place in places]


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A path for new files on the file system of `folder`, removed at the end whatever happens.

    In `folder` itself where that exists (it may be a mount point), else in the nearest folder
    above. Raises FlowError where a file is in the way, OSError where nothing can be written.
    """
    base = folder.absolute()
    while not base.exists():
        base = base.parent
    if not base.is_dir():
        raise FlowError(f"{base} is a file, not a folder; choose another place.")
    with tempfile.TemporaryDirectory(prefix=".naflow-", dir=base) as stage:
        yield Path(stage) / "new"


def publish(stage: Path, folder: Path) -> None:
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
    shutil.rmtree(stage)


def _listed(folder: Path) -> list[str]:
    """Files below `folder` that its flow.json says were written with it; [] without one."""
    try:
        names = json.loads((folder / RECORD).read_text(encoding="utf-8"))["files"]
        return [name for name in names if is_ours(name)]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _write_sample(flow: AttentionFlow, photo: Bytes | None, folder: Path, style: Style) -> None:
    """Write all files of one image (a flow with N = 1) into the new `folder`."""
    (folder / MAPS).mkdir(parents=True)
    files = picture_names(choose(flow, style.layers))
    labels: list[Label] = []
    small: list[Image.Image] = []
    for name, picture in _pictures(flow, files, photo, style):
        write_png(Image.fromarray(picture), folder / files[name])
        empty = "" if flow.maps[name].any() else ", all zero"
        labels.append((name, shape_text(flow.maps[name]) + empty))
        small.append(_thumbnail(picture))
        if style.on_picture is not None:
            style.on_picture(name)
    record = make_record(flow, style.class_names, style.info, files)
    write_png(_sheet(record, photo, labels, small, style), folder / GRID)
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / RECORD).write_text(text + "\n", encoding="utf-8")


def _pictures(
    flow: AttentionFlow, names: Iterable[str], photo: Bytes | None, style: Style
) -> Iterator[tuple[str, Bytes]]:
    """Call site and picture, RGB uint8 [H, W, 3], one at a time: photos may be large."""
    maps = flow.drawable(style.scale)
    for name in names:
        if photo is None:
            height, width = flow.input_size
            yield name, colourise(resize_map(maps[name][0], (height, width)), style.colormap)
        else:
            one = maps[name][0]
            yield name, show_on_image(photo, one, alpha=style.alpha, colormap=style.colormap)


def _thumbnail(picture: Bytes, longest: int = 512) -> Image.Image:
    """The picture, no larger than the grid needs."""
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
        None if photo is None else _thumbnail(photo),
        labels,
        pictures,
        title=" · ".join(part for part in (style.title, headline(record)) if part),
        subtitle=details(record) + few,
        photo_label=("photo", "" if photo is None else f"{photo.shape[0]} x {photo.shape[1]}"),
        colormap=style.colormap,
        legend=("0", LEGENDS[style.scale]),
    )
