"""The Ray engine: decode, explain, write as three operators of Ray Data, which streams.

Parts are the items that flow.  Tasks decode, actors hold the explainer, tasks write; Ray keeps the
queues between them short and runs what a lost worker had again.  Running a part twice is harmless:
its file has the same name and the same rows.  Source and output folder must be reachable from all
machines under the same names.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from naflow_fx.dataset import required
from naflow_fx.dataset.folder import Folder
from naflow_fx.dataset.progress import Progress
from naflow_fx.dataset.runner import Rows, Runner

TAG = "ray"
LIGHT = 0.1  # processors that a decoding or writing task asks for: actors get the whole ones


def run_on_ray(
    folder: Folder, parts: Sequence[int], actors: int | None, progress: Progress
) -> None:
    """Makes parts on the Ray cluster of this process, or of RAY_ADDRESS, or on this machine.

    Args:
        folder: of the results.
        parts: what is to be made.
        actors: how many hold an explainer; None: one a GPU where the job's device is one, else 2.
        progress: what is shown.

    Raises:
        NaflowError: the explainer can't be made, the source is gone, the disk is full.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = required("ray", "engine='ray'", "ray")
    required("ray.data", "engine='ray'", "ray")
    if not parts:
        return
    with progress, _session(ray):
        gpu = folder.job.device.startswith("cuda")
        count = actors or (int(ray.cluster_resources().get("GPU", 0)) if gpu else 0) or 2
        progress.devices = count
        shared = ray.put(folder)
        dataset = _dataset(ray, [shared], parts, count, gpu)
        try:
            for row in dataset.iter_rows():
                progress.begin(ago=float(row["seconds"]))
                progress.add(int(row["done"]), int(row["failed"]), float(row["seconds"]))
        except ray.exceptions.RayError as error:
            raise _cause(error) from None


@contextmanager
def _session(ray: Any) -> Iterator[None]:
    """Ray as it runs, or started here, on this machine alone, without dashboard or reports."""
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    local: dict[str, Any] = {}
    if not address:
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        local = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    ray.init(address=address, log_to_driver=False, logging_level="ERROR", **local)
    try:
        yield
    finally:
        ray.shutdown()


def _dataset(ray: Any, shared: list[Any], parts: Sequence[int], actors: int, gpu: bool) -> Any:
    """The three operators; rows of (part, done, failed, seconds), in the order that they end."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context.execution_options.preserve_order = False
    # the light tasks must find room beside the actors, or nothing would ever flow
    processors = 0.8 * ray.cluster_resources().get("CPU", 1) / actors
    own: dict[str, Any] = {"num_gpus": 1} if gpu else {"num_cpus": min(1, round(processors, 2))}
    items = [{"part": part} for part in parts]
    return (
        ray.data.from_items(items, override_num_blocks=len(items))
        .map_batches(_decoded, batch_size=1, fn_args=(shared,), num_cpus=LIGHT)
        .map_batches(Explaining, batch_size=1, fn_constructor_args=(shared,),
                     compute=ray.data.ActorPoolStrategy(size=actors), **own)
        .map_batches(_written, batch_size=1, fn_args=(shared,), num_cpus=LIGHT)
    )  # fmt: skip


def _decoded(row: dict[str, Any], shared: list[Any]) -> dict[str, Any]:
    """A part number -> its decoded batches."""
    from naflow_fx.dataset.decode import decode

    folder, part = _get(shared), int(row["part"][0])
    prepare = folder.job.spec.prepare()
    batches = [decode(folder.job.source, prepare, p) for p in folder.job.batches(part)]
    return {"part": row["part"], "batches": _one(batches)}


@dataclass
class Explained:
    """A part's rows, and what the writer must know of the explainer."""

    rows: list[Rows]
    layout: Any
    opened: Any


class Explaining:
    """An actor: makes the explainer once, then explains part after part."""

    def __init__(self, shared: list[Any]) -> None:
        import torch

        self.folder = _get(shared)
        job = self.folder.job
        torch.set_num_threads(self.folder.threads)  # other sums of floats would be other bits
        self.runner = Runner(job, job.spec.open(torch.device(job.device)))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Decoded batches -> rows."""
        from dataclasses import replace

        rows: list[Rows] = []
        last = None
        for batch in row["batches"][0]:
            pending = self.runner.start(batch)
            rows += [] if last is None else [last.result()]
            last = pending
        rows += [] if last is None else [last.result()]
        known: Any = replace(self.runner.opened, explain=None)
        return {"part": row["part"],
                "rows": _one(Explained(rows, self.runner.known_layout(), known))}  # fmt: skip


def _written(row: dict[str, Any], shared: list[Any]) -> dict[str, Any]:
    """Rows -> the part's file, and what the driver counts."""
    from naflow_fx.dataset.parts import as_table, write_part

    folder, part, found = _get(shared), int(row["part"][0]), row["rows"][0]
    folder.agree(found.opened, found.layout)
    write_part(folder.parts, as_table(part, folder.hash, found.rows, found.layout), TAG)
    failed = sum(len(rows.failed) for rows in found.rows)
    done = failed + sum(len(rows.photos) for rows in found.rows)
    seconds = sum(rows.seconds for rows in found.rows)
    return {"part": row["part"], "done": np.array([done]), "failed": np.array([failed]),
            "seconds": np.array([seconds])}  # fmt: skip


def _get(shared: list[Any]) -> Folder:
    """The folder, fetched once a machine; in a list, so that Ray doesn't put it into every call."""
    import ray

    folder: Folder = ray.get(shared[0])
    return folder


def _one(value: Any) -> Any:
    """A column of one row that holds an object."""
    column = np.empty(1, dtype=object)
    column[0] = value
    return column


def _cause(error: BaseException) -> BaseException:
    """The NaflowError below Ray's, or Ray's."""
    from naflow_fx.errors import NaflowError

    found: BaseException | None = error
    while found is not None:
        cause = getattr(found, "cause", None)
        for one in (found, cause):
            if isinstance(one, NaflowError):
                return type(one)(str(one))
        found = found.__cause__
    return error
