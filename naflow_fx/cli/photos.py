"""What commands do with photos and the folders that they write."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from naflow_fx.flow_save import staging
from naflow_fx.models.preprocess import Preprocessing
from naflow_fx.printable import printable

SHARPER = 2.0  # pictures have at most this many times the network's resolution


def seen(preprocessing: Preprocessing, image: Image.Image) -> Image.Image:
    """The part of the photo that the network sees, as sharp as the photo has it (within limits)."""
    size = preprocessing.resize
    if not isinstance(size, int):
        return preprocessing.picture(image)
    factor = min(max(1.0, min(image.size) / size), SHARPER)
    larger = replace(
        preprocessing, resize=round(size * factor), crop=round(preprocessing.crop * factor)
    )
    return larger.picture(image)


def shown(photo: Path) -> str:
    """The file's name as text that can be printed and stored, whatever its bytes are."""
    return printable(os.fsencode(photo.name).decode("utf-8", "replace"))


def places(photos: Sequence[Path], out: Path) -> list[Path]:
    """A folder for each photo: its name without the ending, numbered where that is taken."""
    taken: set[str] = set()
    found: list[Path] = []
    for photo in photos:
        name, number = photo.stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{photo.stem}-{number}"
        taken.add(name.casefold())
        found.append(out / name)
    return found


def check_writable(place: Path) -> None:
    """Nothing if files can be made at `place`; else the FlowError or OSError that tells why not."""
    with staging(place) as stage:
        stage.mkdir()
