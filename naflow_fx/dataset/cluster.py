"""The Ray engine: decode, explain, write as three operators of Ray Data, which streams.

Parts are the items that flow.  Tasks decode, actors hold the explainer, tasks write; Ray keeps the
queues between them short and runs what a lost worker had again.  Running a part twice is harmless:
its file has the same name and the same rows.  Source and output folder must be reachable from all
machines under the same names.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from naflow_fx.dataset import required
from naflow_fx.dataset.decode import Batch
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
        for row in dataset.iter_rows():
            if isinstance(row["value"], Exception):
                raise row["value"]
            done, failed, seconds = row["value"]
            progress.begin(ago=float(seconds))
            progress.add(int(done), int(failed), float(seconds))


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
    """The three operators; rows as `_written` gives them, in the order that they end."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context.execution_options.preserve_order = False
    # the light tasks must find room beside the actors, or nothing would ever flow
    processors = 0.8 * ray.cluster_resources().get("CPU", 1) / actors
    own: dict[str, Any] = {"num_gpus": 1} if gpu else {"num_cpus": min(1, round(processors, 2))}
    # each process loads torch: a few suffice, as decoding is quick beside explaining on a CPU
    few = ray.data.TaskPoolStrategy(size=actors * 4 if gpu else max(1, actors // 2))
    light: dict[str, Any] = {
        "num_cpus": LIGHT, "batch_size": 1, "fn_args": (shared,), "compute": few,
    }  # fmt: skip
    items = [{"part": part} for part in parts]
    return (
        ray.data.from_items(items, override_num_blocks=len(items))
        .map_batches(_decoded, **light)
        .map_batches(Explaining, batch_size=1, fn_constructor_args=(shared,),
                     compute=ray.data.ActorPoolStrategy(size=actors), **own)
        .map_batches(_written, **light)
    )  # fmt: skip


Row = dict[str, Any]  # "part": [number], "value": [what the last operator made, or an error]


def _step(row: Row, run: Callable[[int, Any], Any]) -> Row:
    """An operator: part and value -> value.

    What it raises goes on as a value, to the driver: of an error that is raised, Ray would try
    again for ever.
    """
    value = row["value"][0] if "value" in row else None
    if not isinstance(value, Exception):
        try:
            value = run(int(row["part"][0]), value)
        except Exception as error:
            error.__traceback__ = error.__cause__ = error.__context__ = None
            value = error
    column = np.empty(1, dtype=object)
    column[0] = value
    return {"part": row["part"], "value": column}


def _decoded(row: Row, shared: list[Any]) -> Row:
    """A part -> its decoded batches."""
    from naflow_fx.dataset.decode import decode

    def run(part: int, _: None) -> list[Batch]:
        folder = _get(shared)
        prepare = folder.job.spec.prepare()
        return [decode(folder.job.source, prepare, p) for p in folder.job.batches(part)]

    return _step(row, run)


@dataclass
class Explained:
    """A part's rows, and what the writer must know of the explainer."""

    rows: list[Rows]
    layout: Any
    opened: Any


class Explaining:
    """An actor: makes the explainer once, then explains part after part."""

    def __init__(self, shared: list[Any]) -> None:
        self.shared = shared
        self.runner: Runner | None = None

    def __call__(self, row: Row) -> Row:
        """Decoded batches -> rows."""
        return _step(row, self._explain)

    def _explain(self, part: int, batches: list[Batch]) -> Explained:
        runner = self._opened()
        pending = [runner.start(batch) for batch in batches[:1]]
        rows: list[Rows] = []
        for batch in batches[1:]:
            pending.append(runner.start(batch))
            rows.append(pending.pop(0).result())
        rows.append(pending[0].result())
        return Explained(rows, runner.known_layout(), replace(runner.opened, explain=None))

    def _opened(self) -> Runner:
        """The explainer, made at the first call: what a constructor raises never ends."""
        if self.runner is None:
            import torch

            folder = _get(self.shared)
            torch.set_num_threads(folder.threads)  # other sums of floats would be other bits
            opened = folder.job.spec.open(torch.device(folder.job.device))
            self.runner = Runner(folder.job, opened)
        return self.runner


def _written(row: Row, shared: list[Any]) -> Row:
    """Rows -> the part's file, and what the driver counts: done, failed, seconds."""
    from naflow_fx.dataset.parts import as_table, write_part

    def run(part: int, found: Explained) -> tuple[int, int, float]:
        folder = _get(shared)
        folder.agree(found.opened, found.layout)
        write_part(folder.parts, as_table(part, folder.hash, found.rows, found.layout), TAG)
        failed = sum(len(rows.failed) for rows in found.rows)
        done = failed + sum(len(rows.photos) for rows in found.rows)
        return done, failed, sum(rows.seconds for rows in found.rows)

    return _step(row, run)


def _get(shared: list[Any]) -> Folder:
    """The folder, fetched once a machine; in a list, so that Ray doesn't put it into every call."""
    import ray

    folder: Folder = ray.get(shared[0])
    return folder
