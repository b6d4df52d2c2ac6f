"""Decode, explain, write, side by side in one process with workers: the local engine.

A rank of torchrun runs the same on its share of the parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch

from naflow_fx.dataset.folder import Folder
from naflow_fx.dataset.loading import Stream
from naflow_fx.dataset.parts import as_table, write_part
from naflow_fx.dataset.progress import Progress
from naflow_fx.dataset.runner import Rows, Runner
from naflow_fx.dataset.writer import Background


def run_parts(
    folder: Folder, parts: Sequence[int], workers: int, progress: Progress, tag: str = "local"
) -> None:
    """Makes parts, one after the other.

    Decoders start first, while there is no other thread; then the explainer is made, as they
    work ahead.  The device gets its next batch before the results of the last one are fetched.

    Raises:
        NaflowError: the explainer can't be made, the source is gone, the disk is full.
    """
    job, device = folder.job, torch.device(folder.job.device)
    if not parts:
        return
    batches = [batch for part in parts for batch in job.batches(part)]
    prepare = job.spec.prepare()
    stream = Stream(job.source, prepare, batches, workers, pin=device.type == "cuda")
    with stream, progress:
        runner = Runner(job, job.spec.open(device))
        found = _explained(stream, runner, progress)
        with Background() as background:
            for part in parts:
                rows = [next(found) for _ in job.batches(part)]
                background.submit(partial(_write, folder, runner, part, rows, tag))


def _explained(stream: Stream, runner: Runner, progress: Progress) -> Iterator[Rows]:
    """Rows of each batch, in order; the next one is always under way."""
    last = None
    for batch in stream:
        progress.begin()
        pending = runner.start(batch)
        if last is not None:
            yield _count(last.result(), progress)
        last = pending
    if last is not None:
        yield _count(last.result(), progress)


def _count(rows: Rows, progress: Progress) -> Rows:
    progress.add(len(rows.photos) + len(rows.failed), len(rows.failed), rows.seconds)
    return rows


def _write(folder: Folder, runner: Runner, part: int, rows: Sequence[Rows], tag: str) -> None:
    """One part, on the disk when this returns."""
    layout = runner.known_layout()
    folder.agree(runner.opened, layout)
    write_part(folder.parts, as_table(part, folder.hash, rows, layout), tag)
