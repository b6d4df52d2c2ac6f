"""From a photo's bytes to the pixels that the network sees, or to the reason why not."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from PIL.Image import Image
from torch import Tensor

from naflow_fx.dataset.sources import Source
from naflow_fx.errors import PhotoError
from naflow_fx.models.preprocess import Preprocessing, open_photo
from naflow_fx.subjects.network import Prepare


@dataclass(frozen=True)
class Photo:
    """What is known of one photo beside its pixels.

    Attributes:
        position, id: in the source.
        label: its class, -1 where unknown.
        sha256: of its file; "" where that can't be read.
        size: (height, width) of the upright photo; (0, 0) where it can't be opened.
        error: why it has no row; None if it has one.
    """

    position: int
    id: str
    label: int = -1
    sha256: str = ""
    size: tuple[int, int] = (0, 0)
    error: str | None = None


@dataclass
class Batch:
    """Photos of a batch and what the network sees of them.

    Attributes:
        photos: in the source's order.
        pixels: one row a photo, 0 where it failed: uint8 [n, C, H, W] for a `Preprocessing`,
            which the device normalises; else as the callable gives them.
        gone: where the source was, if it can't be reached any more.
    """

    photos: list[Photo]
    pixels: Tensor | None
    gone: str | None = None

    def pin_memory(self, *_: Any) -> Batch:
        """The same in memory that a CUDA device copies from without waiting."""
        if self.pixels is not None:
            self.pixels = self.pixels.pin_memory()
        return self


class Named(io.BytesIO):
    """Bytes whose text is a photo's name, for the messages of `open_photo`."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.shown = name

    def __str__(self) -> str:
        return self.shown


def decode(source: Source, prepare: Prepare, positions: Sequence[int]) -> Batch:
    """A batch: every photo is decoded, or has the reason why not."""
    found = [decode_one(source, prepare, position) for position in positions]
    gone = None
    if any(photo.error for photo, _ in found) and not source.there():
        gone = source.place
    return join(found, gone)


def join(found: Sequence[tuple[Photo, Tensor | None]], gone: str | None = None) -> Batch:
    """Single photos as a batch; zeros take the place of those that failed."""
    shape = next((pixels for _, pixels in found if pixels is not None), None)
    if shape is None:
        return Batch([photo for photo, _ in found], None, gone)
    pixels = torch.zeros((len(found), *shape.shape), dtype=shape.dtype)
    photos = []
    for row, (photo, one) in enumerate(found):
        if one is not None:
            pixels[row] = one
        photos.append(photo)
    return Batch(photos, pixels, gone)


def decode_one(source: Source, prepare: Prepare, position: int) -> tuple[Photo, Tensor | None]:
    """One photo; whatever is wrong with it ends up in `Photo.error`."""
    label = -1 if source.labels is None else source.labels[position]
    name, digest = source.ids[position], ""
    try:
        data = source.read(position)
        digest = hashlib.sha256(data).hexdigest()
        if not data:
            raise PhotoError("empty: 0 bytes")
        image = open_photo(cast(Any, Named(data, name)))
        size = (image.height, image.width)
        return Photo(position, name, label, digest, size), pixels_of(prepare, image)
    except Exception as error:  # one photo never ends a run: decoders raise nearly anything
        reason = _reason(error, name)
        return Photo(position, name, label, digest, error=reason), None


def pixels_of(prepare: Prepare, image: Image) -> Tensor:
    """What of a photo goes to the device: [C, H, W] uint8, or what the callable gives."""
    return prepare.pixels(image) if isinstance(prepare, Preprocessing) else prepare(image)


def normalised(prepare: Prepare, pixels: Tensor) -> Tensor:
    """Network inputs of pixels, on their device: what `Preprocessing` gives, to the bit."""
    if not isinstance(prepare, Preprocessing):
        return pixels
    mean, std = torch.tensor([prepare.mean, prepare.std], device=pixels.device)[..., None, None]
    inputs: Tensor = (pixels.float() * prepare.scale - mean) / std
    return inputs


def _reason(error: Exception, name: str) -> str:
    """One line, without the photo's name, which stands beside it."""
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read ({error.strerror})"
    words = " ".join(str(error).split()).removeprefix(f"{name}: ") or type(error).__name__
    known = isinstance(error, (PhotoError, OSError))
    return words if known else f"{type(error).__name__}: {words}"
