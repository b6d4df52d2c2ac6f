"""Moving pictures through the layers: a GIF by Pillow, an MP4 by the program ffmpeg."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from naflow_fx.errors import FlowError, unfit
from naflow_fx.files import replacing
from naflow_fx.flow.data import FlowData
from naflow_fx.selection import choose
from naflow_fx.view.colours import Bytes
from naflow_fx.view.photos import Style, photos_of, pictures
from naflow_fx.view.record import shape_text
from naflow_fx.view.sheet import GREY, PAPER, side_by_side, write_text

GAP, CAPTION, RULE = 8, 40, 4  # pixels: between photos, under them, and the bar of progress
HOLD = 4  # the last layer stays as long as this many


@dataclass(frozen=True, kw_only=True)
class Look(Style):
    """What `save_gif` and `save_mp4` take.

    rate: layers a second. size: height of the photos, pixels.
    """

    rate: float = 4
    size: int = 320

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 60:
            wanted = "layers a second, above 0 and at most 60"
            raise unfit(FlowError, "save_gif", wanted, rate=self.rate)
        if self.size < 32:
            raise unfit(FlowError, "save_gif", "32 pixels or more", size=self.size)


def save_gif(flow: FlowData, path: Path, images: Any, look: Look) -> Path:
    """What `AttentionFlow.save_gif` documents."""
    frames = [Image.fromarray(frame).quantize(128) for frame in draw(flow, images, look)]
    once = round(1000 / look.rate)
    with replacing(path) as draft:
        frames[0].save(
            draft,
            "GIF",
            save_all=True,
            append_images=frames[1:],
            loop=0,
            duration=[once] * (len(frames) - 1) + [HOLD * once],
        )
    return path


def save_mp4(flow: FlowData, path: Path, images: Any, look: Look) -> Path:
    """What `AttentionFlow.save_mp4` documents."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise FlowError("save_mp4 needs the program ffmpeg; install it, or use save_gif.")
    frames = list(draw(flow, images, look))
    frames += [frames[-1]] * (HOLD - 1)
    height, width = frames[0].shape[:2]
    with replacing(path) as draft:
        command = [
            program, "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24",
            "-s", f"{width}x{height}", "-framerate", str(look.rate), "-i", "-",
            "-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "20", "-movflags", "+faststart",
            "-f", "mp4", str(draft),
        ]  # fmt: skip
        pixels = b"".join(frame.tobytes() for frame in frames)
        done = subprocess.run(command, input=pixels, capture_output=True, check=False)
        if done.returncode:
            raise FlowError(f"ffmpeg failed: {done.stderr.decode(errors='replace').strip()}")
    return path


def draw(flow: FlowData, images: Any, look: Look) -> Iterator[Bytes]:
    """One frame a layer, RGB uint8, even sides: the photos with their maps, name and progress."""
    photos = [_resized(photo, look.size) for photo in photos_of(flow, images)]
    count = len(choose(list(flow.maps), look.layers))
    for number, (name, made) in enumerate(pictures(flow, photos, look), start=1):
        text = f"{number} / {count} · {shape_text(flow.maps[name])}"
        yield _frame(made, name, text, number / count)


def _resized(photo: Bytes, height: int) -> Bytes:
    """The photo at an even height, and about its width, even, too."""
    even = height - height % 2
    width = max(2, 2 * round(photo.shape[1] * even / photo.shape[0] / 2))
    picture = Image.fromarray(photo).resize((width, even), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def _frame(made: Sequence[Bytes], name: str, text: str, done: float) -> Bytes:
    """Pictures in a row, a bar of progress, the layer's name."""
    row = side_by_side([*map(Image.fromarray, made)], GAP)
    width, height = row.size
    sheet = ImageOps.expand(row, (0, 0, 0, CAPTION), PAPER)
    bar = (0, height, round(width * done), height + RULE - 1)
    ImageDraw.Draw(sheet).rectangle(bar, fill=(213, 94, 0))
    write_text(sheet, (6, height + 6), name, 14, width - 12)
    write_text(sheet, (6, height + 23), text, 11, width - 12, GREY)
    return np.asarray(sheet)
