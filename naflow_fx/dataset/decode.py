"""From a photo's bytes to the pixels that the network sees, or to the reason why not.

In worker processes, in the source's order; a photo that kills its decoder is found.
"""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

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
GONE = "its source can't be reached any more"
PREFETCH = 4  # batches that a worker decodes ahead


@dataclass
class Photo:
    """What is known of one photo beside its pixels; the names are those of the columns.

    Attributes:
        position, id: in the source.
        label: its class, -1 where unknown.
        sha256: of its file; None where that can't be read.
        height, width: of the upright photo; 0 where it can't be opened.
        reason: why it has no row; None if it has one.
    """

    position: int
    id: str
    label: int = -1
    sha256: str | None = None
    height: int = 0
    width: int = 0
    reason: str | None = None


class Batch(NamedTuple):
    """Photos of a batch and what the network sees of them.

    Attributes:
        photos: in the source's order.
        pixels: one row a photo, 0 where it failed: uint8 [n, C, H, W] for a `Preprocessing`,
            which the device normalises; else as the callable gives them.  None: all failed.
    """

    photos: list[Photo]
    pixels: Tensor | None

    @classmethod
    def of(cls, found: Sequence[tuple[Photo, Any]]) -> Batch:
        """Single photos with their pixels [C, H, W], None for those that failed."""
        photos = [photo for photo, _ in found]
        known = [None if pixels is None else torch.as_tensor(pixels) for _, pixels in found]
        like = next((pixels for pixels in known if pixels is not None), None)
        if like is None:
            return cls(photos, None)
        rows = [torch.zeros_like(like) if pixels is None else pixels for pixels in known]
        return cls(photos, torch.stack(rows))


@dataclass(frozen=True)
class Decoder:
    """Reads photos of a source; picklable, for the processes that decode.

    Attributes:
        source: where they are.
        prepare: how they become inputs.
        workers: processes of `stream`; 0: it decodes in this one.
        pin: whether `stream` gives batches that a CUDA device copies from without waiting.
    """

    source: Source
    prepare: Prepare
    workers: int = 0
    pin: bool = False

    def photo(self, position: int) -> tuple[Photo, Tensor | None]:
        """One photo; whatever is wrong with it ends up in `Photo.reason`."""
        labels = self.source.labels
        label = -1 if labels is None else labels[position]
        photo, file = Photo(position, self.source.ids[position], label), io.BytesIO()
        try:
            size = file.write(self.source.read(position))
            photo.sha256 = hashlib.sha256(file.getbuffer()).hexdigest()
            if not size:
                raise PhotoError("empty: 0 bytes")
            image = open_photo(cast(Any, file))
            photo.height, photo.width = image.height, image.width
            return photo, pixels_of(self.prepare, image)
        except Exception as error:  # one photo never ends a run: decoders raise nearly anything
            photo.reason = _reason(error, f"{file}: ") if self.source.there() else GONE
            return photo, None

    def batch(self, positions: Sequence[int]) -> Batch:
        """A batch: every photo is decoded, or has the reason why not."""
        return Batch.of([self.photo(position) for position in positions])

    def one_by_one(self, positions: Sequence[int], method: str | None = None) -> Batch:
        """A batch, each photo alone in another process, a new one where one was killed.

        method: how processes start, as `multiprocessing` names it; None: its default.
        """
        found: list[tuple[Photo, Any]] = []
        context = multiprocessing.get_context(method)
        while len(found) < len(positions):
            with ProcessPoolExecutor(1, context) as process:
                try:
                    for position in positions[len(found) :]:
                        found.append(process.submit(self._alone, position).result())
                except BrokenProcessPool:
                    position = positions[len(found)]
                    photo = Photo(position, self.source.ids[position], reason=KILLED)
                    found.append((photo, None))
        return Batch.of(found)

    def _alone(self, position: int) -> tuple[Photo, NDArray[Any] | None]:
        """A photo, its pixels as an array: those outlive the process that made them."""
        photo, pixels = self.photo(position)
        return photo, None if pixels is None else pixels.contiguous().numpy()

    @contextmanager
    def stream(self, batches: Sequence[range]) -> Iterator[Iterator[Batch]]:
        """Every batch once, in order; the workers have started, and end with the block.

        A worker that dies (a decoder's crash, the memory's end) doesn't end the run: the batch
        that was awaited is decoded photo by photo in another process, and the workers start again
        behind it.  So it is noticed where its batch is awaited, not anywhere: DataLoader's own
        handler of SIGCHLD, which is put aside, would raise in whatever code just runs.
        """
        found = self._each(self._loaded(batches), batches)
        main = threading.current_thread() is threading.main_thread()
        handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if main else None
        try:
            yield found
        finally:
            found.close()
            if handler is not None:
                signal.signal(signal.SIGCHLD, handler)

    def _each(
        self, loaded: Iterator[Batch], batches: Sequence[range]
    ) -> Generator[Batch, None, None]:
        for done, positions in enumerate(batches, 1):
            try:
                batch = next(loaded)
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                batch = self.one_by_one(positions)
                loaded = self._loaded(batches[done:])
            yield batch

    def _loaded(self, batches: Sequence[range]) -> Iterator[Batch]:
        loader: DataLoader[Any] = DataLoader(
            batches,  # type: ignore[arg-type]
            batch_size=None,  # one entry is a whole batch
            collate_fn=self.batch,
            num_workers=self.workers,
            prefetch_factor=PREFETCH if self.workers else None,
            pin_memory=self.pin,
        )
        return iter(loader)


def pixels_of(prepare: Prepare, image: Image) -> Tensor:
    """What of a photo goes to the device: [C, H, W] uint8, or what the callable gives."""
    return prepare.pixels(image) if isinstance(prepare, Preprocessing) else prepare(image)


def normalised(prepare: Prepare, pixels: Tensor) -> Tensor:
    """Network inputs of what `pixels_of` gives, on its device."""
    return prepare.normalised(pixels) if isinstance(prepare, Preprocessing) else pixels


def _reason(error: Exception, file: str) -> str:
    """One line, without what `open_photo` calls the file: the photo's name stands beside it."""
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read ({error.strerror})"
    words = " ".join(str(error).split()).removeprefix(file) or type(error).__name__
    known = isinstance(error, (PhotoError, OSError))
    return words if known else f"{type(error).__name__}: {words}"


def default_workers(device: str) -> int:
    """Processes that decode: on a CPU few, for they take cores from the explainer."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(2 if device == "cpu" else 16, (cores or 2) - 1))
