"""Decode, explain, write, side by side in one process with workers: the local engine.

A rank of torchrun runs the same on its share of the parts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from naflow_fx.dataset.decode import Decoder, default_workers
from naflow_fx.dataset.folder import Folder
from naflow_fx.dataset.progress import Progress
from naflow_fx.dataset.runner import Runner

AHEAD = 2  # parts that wait to be written: results don't pile up


def run_parts(
    folder: Folder, parts: Sequence[int], workers: int | None, progress: Progress
) -> None:
    """Makes parts, one after the other.

    Decoders start first, while there is no other thread; then the explainer is made, as they
    work ahead.  Parts are written in a thread.

    Raises:
        NaflowError: the explainer can't be made, the source is gone, the disk is full.
    """
    if not parts:
        return
    job = folder.job
    count = default_workers(job.device) if workers is None else workers
    decoder = Decoder(job.source, job.spec.prepare(), count, job.device.startswith("cuda"))
    batches = [batch for part in parts for batch in job.batches(part)]
    with decoder.stream(batches) as decoded, progress:
        runner = Runner(job)
        progress.begin()
        found = runner.rows(decoded)
        with ThreadPoolExecutor(1, thread_name_prefix="naflow-writer") as writer:
            waiting: deque[Future[None]] = deque()
            for part in parts:
                rows = []
                for _ in job.batches(part):
                    rows.append(next(found))
                    progress.add(*rows[-1].counts)
                while waiting and (waiting[0].done() or len(waiting) > AHEAD):
                    waiting.popleft().result()
                waiting.append(writer.submit(folder.write, part, rows, runner.layout))
            for last in waiting:
                last.result()
