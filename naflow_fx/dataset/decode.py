"""From a photo's bytes to the pixels that the network sees, or to the reason why not.

In worker processes, in the source's order; a photo that kills its decoder is found.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import io
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader

from naflow_fx.dataset.sources import Source
from naflow_fx.errors import PhotoError
from naflow_fx.models.preprocess import Preprocessing, open_photo
from naflow_fx.subjects.network import Prepare

KILLED = "its decoder was killed: damaged on purpose, or too large for the memory"
PREFETCH = 4  # batches that a worker decodes ahead


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
    photos = [photo for photo, _ in found]
    known = next((pixels for _, pixels in found if pixels is not None), None)
    if known is None:
        return Batch(photos, None, gone)
    rows = [torch.zeros_like(known) if pixels is None else pixels for _, pixels in found]
    return Batch(photos, torch.stack(rows), gone)


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


class Stream:
    """Decoded batches in their order; `with` starts the workers.

    A worker that dies (a decoder's crash, the memory's end) doesn't end the run: the batch that
    was awaited is decoded photo by photo in another process, and the workers start again behind
    it.
    """

    def __init__(
        self,
        source: Source,
        prepare: Prepare,
        batches: Sequence[range],
        workers: int,
        pin: bool,
    ) -> None:
        self.source, self.prepare = source, prepare
        self.batches, self.workers, self.pin = list(batches), workers, pin

    def __enter__(self) -> Stream:
        """Starts the workers; a dead one is noticed where its batch is awaited, not anywhere.

        DataLoader's own handler of SIGCHLD would raise in whatever code just runs.
        """
        before = _on_child()
        self._running = self._start(0)
        self._after = _on_child()
        _on_child(before if self._after is not before else signal.SIG_DFL)
        return self

    def __exit__(self, *_: object) -> None:
        """The workers end; the handler is DataLoader's again."""
        del self._running
        _on_child(self._after)

    def __iter__(self) -> Iterator[Batch]:
        """Every batch, once."""
        done = 0
        while done < len(self.batches):
            try:
                batch = next(self._running)
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                batch = decode_one_by_one(self.source, self.prepare, self.batches[done])
                self._running = self._start(done + 1)
            done += 1
            yield batch

    def _start(self, done: int) -> Iterator[Batch]:
        """The batches from `done` on."""
        loader: DataLoader[Any] = DataLoader(
            self.batches[done:],  # type: ignore[arg-type]
            batch_size=None,  # one entry is a whole batch
            collate_fn=partial(decode, self.source, self.prepare),
            num_workers=self.workers,
            prefetch_factor=PREFETCH if self.workers else None,
            pin_memory=self.pin,
        )
        return iter(loader)


def decode_one_by_one(
    source: Source,
    prepare: Prepare,
    positions: Sequence[int],
    method: str | None = None,
) -> Batch:
    """A batch, each photo alone in another process, a new one where one was killed.

    method: how processes start, as `multiprocessing` names it; None: its default.
    """
    found: list[tuple[Photo, Any]] = []
    context = multiprocessing.get_context(method)
    while len(found) < len(positions):
        with concurrent.futures.ProcessPoolExecutor(1, context) as process:
            try:
                for position in positions[len(found) :]:
                    task = process.submit(_alone, source, prepare, position)
                    found.append(task.result())
            except BrokenProcessPool:
                position = positions[len(found)]
                found.append((Photo(position, source.ids[position], error=KILLED), None))
    return join([(p, None if x is None else torch.from_numpy(x)) for p, x in found])


def _on_child(handler: Any = None) -> Any:
    """What handles SIGCHLD, in whose place a handler goes; None outside of the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return None
    known = signal.getsignal(signal.SIGCHLD)
    if handler is not None:
        signal.signal(signal.SIGCHLD, handler)
    return known


def _alone(source: Source, prepare: Prepare, position: int) -> tuple[Photo, NDArray[Any] | None]:
    """`decode_one`, its pixels as an array: those outlive the process that made them."""
    photo, pixels = decode_one(source, prepare, position)
    return photo, None if pixels is None else pixels.contiguous().numpy()


def default_workers(device: str) -> int:
    """Processes that decode: on a CPU few, for they take cores from the explainer."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(2 if device == "cpu" else 16, (cores or 2) - 1))
