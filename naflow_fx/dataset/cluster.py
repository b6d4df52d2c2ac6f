"""The Ray engine: decode, explain, write as operators of Ray Data, which streams.

Parts are the items that flow.  Each operator is a pool of actors: Ray ends a process of tasks that
had none for a second, and the next one would load torch again.  Ray keeps the queues between them
short and runs what a lost worker had again.  Running a part twice is harmless: its file has the
same name and the same rows.  Source and output folder must be reachable from all machines under
the same names.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any, cast

import numpy as np

from naflow_fx.dataset import STAGES, required
from naflow_fx.dataset.decode import Batch, decode, decode_one_by_one
from naflow_fx.dataset.folder import Folder
from naflow_fx.dataset.parts import Layout, Rows, as_table, write_part
from naflow_fx.dataset.progress import Progress
from naflow_fx.dataset.runner import Runner

TAG = "ray"
LIGHT = 0.1  # processors that a decoder or writer asks for


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
    """The operators; rows as `Writing` gives them, in the order that they end."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context.execution_options.preserve_order = False
    made = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts))
    for step, size, asked in _operators(actors, gpu, ray.cluster_resources().get("CPU", 1)):
        pool = ray.data.ActorPoolStrategy(size=size)
        made = made.map_batches(step, batch_size=1, fn_constructor_args=(shared,), compute=pool,
                                **asked)  # fmt: skip
    return made


def _operators(
    actors: int, gpu: bool, processors: float
) -> list[tuple[type[Step], int, dict[str, float]]]:
    """Step, how many actors, what each asks for.

    On GPUs decoders and writers work beside the explainers.  On CPUs all would share the same
    cores, and each process costs memory and, idle in Ray, some of a core: one does all three.
    """
    if not gpu:  # what is left is for those that Ray Data itself starts
        return [(Making, actors, {"num_cpus": min(1, round(0.8 * processors / actors, 2))})]
    light = {"num_cpus": LIGHT}
    return [
        (Decoding, 4 * actors, light), (Explaining, actors, {"num_gpus": 1}),
        (Writing, 4 * actors, light),
    ]  # fmt: skip


Row = dict[str, Any]  # "part": [number], "value": [what the last operator made, or an error]


class Step:
    """An operator, as an actor: part and value -> value."""

    def __init__(self, shared: list[Any]) -> None:
        self.shared = shared

    def __call__(self, row: Row) -> Row:
        """Runs; what is raised goes on as a value, to the driver.

        Of an error that is raised, by a constructor too, Ray would try again for ever.
        """
        value = row["value"][0] if "value" in row else None
        if not isinstance(value, Exception):
            try:
                value = self.run(int(row["part"][0]), value)
            except Exception as error:
                error.__traceback__ = error.__cause__ = error.__context__ = None
                value = error
        column = np.empty(1, dtype=object)
        column[0] = value
        return {"part": row["part"], "value": column}

    @cached_property
    def folder(self) -> Folder:
        """Fetched once; `shared` is a list, so that Ray doesn't put it into every call."""
        import ray

        found: Folder = ray.get(self.shared[0])
        return found

    def run(self, part: int, value: Any) -> Any:
        """What the operator does."""
        raise NotImplementedError


class Decoding(Step):
    """A part -> its decoded batches."""

    def run(self, part: int, value: None) -> list[Batch]:
        """Decodes; a photo that can't be is in its batch, with the reason.

        Ray repeats what a lost actor had.  A part that is begun for the second time may hold what
        kills its decoder, so its photos are decoded each in a process of its own.
        """
        job = self.folder.job
        begun = self.folder.parts / f"{STAGES}decoding-{part:06d}"
        how = partial(decode_one_by_one, method="spawn") if begun.exists() else decode
        begun.touch()
        found = [how(job.source, self.prepare, photos) for photos in job.batches(part)]
        begun.unlink(missing_ok=True)
        return found

    @cached_property
    def prepare(self) -> Any:
        """How photos become inputs."""
        return self.folder.job.spec.prepare()


Explained = tuple[list[Rows], Layout]  # a part's rows, and what they are made of


class Explaining(Step):
    """Decoded batches -> rows; the explainer is made once."""

    def run(self, part: int, value: list[Batch]) -> Explained:
        """Explains; the next batch is under way before the results of the last are fetched."""
        runner, pending, rows = self.runner, [], []
        for batch in value:
            pending.append(runner.start(batch))
            if len(pending) > 1:
                rows.append(pending.pop(0).result())
        rows.append(pending[0].result())
        return rows, runner.known_layout()

    @cached_property
    def runner(self) -> Runner:
        """The explainer, made at the first call."""
        import torch

        torch.set_num_threads(self.folder.threads)  # other sums of floats would be other bits
        return Runner(self.folder.job)


class Writing(Step):
    """Rows -> the part's file, and what the driver counts: done, failed, seconds."""

    def run(self, part: int, value: Explained) -> tuple[int, int, float]:
        """Writes the part; it is on the disk when this returns."""
        folder, (rows, layout) = self.folder, value
        folder.agree(layout)
        write_part(folder.parts, part, as_table(part, folder.hash, rows, layout), TAG)
        failed = sum(len(found.failed) for found in rows)
        done = failed + sum(len(found.photos) for found in rows)
        return done, failed, sum(found.seconds for found in rows)


class Making(Step):
    """A part -> its file: all three, in one process."""

    def run(self, part: int, value: None) -> tuple[int, int, float]:
        """Decodes, explains, writes."""
        found: Any = value
        for step in self.steps:
            found = step.run(part, found)
        return cast("tuple[int, int, float]", found)

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """The three operators."""
        return Decoding(self.shared), Explaining(self.shared), Writing(self.shared)
