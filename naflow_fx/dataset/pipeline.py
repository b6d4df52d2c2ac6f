"""Decode, explain, write, side by side in one process with workers: the local engine.

A rank of torchrun runs the same on its share of the parts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from naflow_fx.dataset.decode import Stream, default_workers
from naflow_fx.dataset.folder import Folder
from naflow_fx.dataset.parts import Rows, as_table, write_part
from naflow_fx.dataset.progress import Progress
from naflow_fx.dataset.runner import Runner

AHEAD = 2  # parts that wait to be written: results don't pile up


def run_parts(
    folder: Folder, parts: Sequence[int], workers: int | None, progress: Progress, tag: str
) -> None:
    """Makes parts, one after the other.

    Decoders start first, while there is no other thread; then the explainer is made, as they
    work ahead.  The device gets its next batch before the results of the last one are fetched, and
    parts are written in a thread.

    Raises:
        NaflowError: the explainer can't be made, the source is gone, the disk is full.
    """
    job = folder.job
    if not parts:
        return
    if workers is None:
        workers = default_workers(job.device)
    batches = [batch for part in parts for batch in job.batches(part)]
    pin = job.device.startswith("cuda")
    with Stream(job.source, job.spec.prepare(), batches, workers, pin) as stream, progress:
        runner = Runner(job)
        found = _explained(stream, runner, progress)
        with ThreadPoolExecutor(1, thread_name_prefix="naflow-writer") as writer:
            waiting: deque[Future[None]] = deque()
            for part in parts:
                rows = [next(found) for _ in job.batches(part)]
                while waiting and (waiting[0].done() or len(waiting) > AHEAD):
                    waiting.popleft().result()
                waiting.append(writer.submit(_write, folder, runner, part, rows, tag))
            for last in waiting:
                last.result()


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
    folder.agree(layout)
    write_part(folder.parts, part, as_table(part, folder.hash, rows, layout), tag)
