"""Decoding in worker processes, in the source's order; a photo that kills its decoder is found."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from naflow_fx.dataset.decode import Batch, Photo, decode, decode_one, join
from naflow_fx.dataset.sources import Source
from naflow_fx.subjects.network import Prepare

KILLED = "its decoder was killed: damaged on purpose, or too large for the memory"
PREFETCH = 4  # batches that a worker decodes ahead


class Decoding(Dataset[Batch]):
    """Batches by number, for DataLoader."""

    def __init__(self, source: Source, prepare: Prepare, batches: Sequence[range]) -> None:
        self.source, self.prepare, self.batches = source, prepare, batches

    def __len__(self) -> int:
        """Number of batches."""
        return len(self.batches)

    def __getitem__(self, index: int) -> Batch:
        """One batch, decoded."""
        return decode(self.source, self.prepare, self.batches[index])


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
        before = _handler()
        self._running = self._start(0)
        self._after = _handler()
        _handle(before if self._after is not before else signal.SIG_DFL)
        return self

    def __exit__(self, *_: object) -> None:
        """The workers end; the handler is DataLoader's again."""
        del self._running
        _handle(self._after)

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
        dataset = Decoding(self.source, self.prepare, self.batches[done:])
        loader: DataLoader[Batch] = DataLoader(
            dataset,
            batch_size=None,  # one entry is a whole batch
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


def _handler() -> Any:
    """What handles SIGCHLD; None where there is no such signal, or this is not the main thread."""
    main = threading.current_thread() is threading.main_thread()
    return signal.getsignal(signal.SIGCHLD) if main and hasattr(signal, "SIGCHLD") else None


def _handle(handler: Any) -> None:
    """Puts a handler of SIGCHLD in place, where `_handler` could read it."""
    if handler is not None and _handler() is not None:
        signal.signal(signal.SIGCHLD, handler)


def _alone(source: Source, prepare: Prepare, position: int) -> tuple[Photo, NDArray[Any] | None]:
    """`decode_one`, its pixels as an array: those outlive the process that made them."""
    photo, pixels = decode_one(source, prepare, position)
    return photo, None if pixels is None else pixels.contiguous().numpy()


def default_workers(device: str) -> int:
    """Processes that decode: on a CPU few, for they take cores from the explainer."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(2 if device == "cpu" else 16, (cores or 2) - 1))
