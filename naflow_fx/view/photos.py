"""Photos in the forms that users have them, as RGB uint8 [H, W, 3] arrays, and maps over them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from naflow_fx.errors import FlowError
from naflow_fx.flow.data import FlowData, Scale
from naflow_fx.selection import choose
from naflow_fx.view.colours import Bytes, as_array, check_finite, show_on_image

FORMS = (
    "Give uint8 RGB [N, H, W, 3] (or a list of [H, W, 3] or PIL images), or the network's own "
    "float input [N, 3, H, W]."
)


def as_photos(images: Any, count: int) -> list[Bytes]:
    """`images` as `count` arrays, RGB uint8 [H, W, 3]; FlowError when form or number do not fit.

    images: uint8 [N, H, W, 3] or [N, 3, H, W]; a list of uint8 [H, W, 3] or of PIL images; or
    floats [N, 3, H, W] or [N, 1, H, W] as the network takes them, whose normalisation is not
    known here: each is stretched so that its smallest value is black and its largest white.
    A single PIL image, [H, W, 3] or [3, H, W] stands for a batch of one.
    """
    photos = [_photo(one) for one in _split(images)]
    if len(photos) != count:
        raise FlowError(
            f"Got {len(photos)} images for {count} samples. Give one image a sample, "
            "or take one sample of the flow: flow[i]."
        )
    return photos


def photos_of(flow: FlowData, images: Any) -> list[Bytes]:
    """The photos of a flow, `as_photos` of the images that are given, or those that it knows."""
    return as_photos(list(flow.about.photos) or None if images is None else images, len(flow))


def known_photos(flow: FlowData, images: Any) -> Sequence[Bytes | None]:
    """The same, or None for each where none are given or known."""
    none = images is None and not flow.about.photos
    return [None] * len(flow) if none else photos_of(flow, images)


def _split(images: Any) -> Sequence[Any]:
    """The single images that a batch, a list or one image holds."""
    rank = getattr(images, "ndim", 0)
    if isinstance(images, Image.Image) or rank == 3:
        return [images]
    if isinstance(images, (list, tuple)) or rank == 4:
        return list(images)
    raise _strange(f"{images.dtype} {tuple(images.shape)}" if rank else type(images).__name__)


def _strange(what: str) -> FlowError:
    return FlowError(f"Images can't be {what}. {FORMS}")


def _photo(image: Any) -> Bytes:
    """One image as RGB uint8 [H, W, 3]."""
    pixels = as_array(image)
    if pixels.ndim == 3 and pixels.dtype == np.uint8:
        if pixels.shape[2] == 3:
            return pixels
        if pixels.shape[0] == 3:
            return np.ascontiguousarray(pixels.transpose(1, 2, 0))
    if pixels.ndim == 3 and np.issubdtype(pixels.dtype, np.floating) and pixels.shape[0] in (1, 3):
        return _stretched(pixels)
    raise _strange(f"{pixels.dtype} {tuple(pixels.shape)}")


def _stretched(planes: NDArray[Any]) -> Bytes:
    """Floats [1 or 3, H, W] as RGB uint8 [H, W, 3], smallest value to 0, largest to 255."""
    check_finite(planes, "An image")
    low, high = float(planes.min()), float(planes.max())
    shares = (planes - low) / ((high - low) or 1.0)
    pixels = np.rint(255 * shares).astype(np.uint8).transpose(1, 2, 0)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def thumbnail(picture: Bytes, longest: int) -> Image.Image:
    """The picture, its longer side at most `longest` pixels."""
    small = Image.fromarray(picture)
    small.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return small


@dataclass(frozen=True, kw_only=True)
class Style:
    """How maps are drawn, and which: `layers` are names and globs, None all.

    The others are those of `AttentionFlow.overlay`.
    """

    layers: Sequence[str] | None = None
    alpha: float = 0.5
    colormap: str = "inferno"
    scale: Scale = "map"
    smooth: bool = True


def pictures(
    flow: FlowData, photos: Sequence[Bytes | None], style: Style
) -> Iterator[tuple[str, list[Bytes]]]:
    """Each chosen call site and its maps in colours, one an image, RGB uint8 [H, W, 3].

    A map lies over its photo; where there is none it is as large as the network's input.
    """
    maps, paper = flow.drawable(style.scale), np.zeros((*flow.input_size, 3), np.uint8)
    grounds = [(paper, 1.0) if photo is None else (photo, style.alpha) for photo in photos]
    look = partial(show_on_image, colormap=style.colormap, smooth=style.smooth)
    for name in choose(list(flow.maps), style.layers):
        made = zip(grounds, maps[name], strict=True)
        yield name, [look(ground, plane, alpha=alpha) for (ground, alpha), plane in made]


def overlay(flow: FlowData, images: Any, style: Style) -> OrderedDict[str, Bytes]:
    """What `AttentionFlow.overlay` documents."""
    photos = photos_of(flow, images)
    shapes = {photo.shape for photo in photos}
    if len(shapes) > 1:
        sizes = ", ".join(sorted(f"{s[0]}x{s[1]}" for s in shapes))
        raise FlowError(f"The images differ in size ({sizes}). Use flow[i].overlay([image]).")
    return OrderedDict((name, np.stack(made)) for name, made in pictures(flow, photos, style))
