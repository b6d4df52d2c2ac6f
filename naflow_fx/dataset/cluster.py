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
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cached_property, partial
from typing import Any

import numpy as np

from naflow_fx.dataset import STAGES, required
from naflow_fx.dataset.decode import Batch, Decoder
from naflow_fx.dataset.folder import Folder
from naflow_fx.dataset.parts import Layout, Rows
from naflow_fx.dataset.progress import Progress
from naflow_fx.dataset.runner import Runner

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
        for row in _dataset(ray, ray.put(folder), parts, count, gpu).iter_rows():
            if isinstance(row["value"], Exception):
                raise row["value"]
            photos, failed, seconds = row["value"]  # floats by now
            progress.begin(ago=seconds)
            progress.add(int(photos), int(failed), seconds)


def _session(ray: Any) -> Any:
    """Ray as it runs, or started here, on this machine alone, without dashboard or reports."""
    if ray.is_initialized():
        return nullcontext()
    local: dict[str, Any] = {}
    if not os.environ.get("RAY_ADDRESS"):  # which Ray joins by itself
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        local = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    return ray.init(log_to_driver=False, logging_level="ERROR", **local)


def _dataset(ray: Any, folder: Any, parts: Sequence[int], actors: int, gpu: bool) -> Any:
    """The operators; rows as `Worker.write` gives them, in the order that they end."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context.execution_options.preserve_order = False
    made = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts))
    for steps, size, asked in _operators(actors, gpu, ray.cluster_resources().get("CPU", 1)):
        pool = ray.data.ActorPoolStrategy(size=size)
        made = made.map_batches(Worker, batch_size=1, fn_constructor_args=([folder], steps),
                                compute=pool, **asked)  # fmt: skip
    return made


def _operators(
    actors: int, gpu: bool, processors: float
) -> list[tuple[Sequence[str], int, dict[str, float]]]:
    """Steps of `Worker`, how many actors, what each asks for.

    On GPUs decoders and writers work beside the explainers.  On CPUs all would share the same
    cores, and each process costs memory and, idle in Ray, some of a core: one does all three.
    """
    if not gpu:  # what is left is for those that Ray Data itself starts
        asked = {"num_cpus": min(1, round(0.8 * processors / actors, 2))}
        return [(["decode", "explain", "write"], actors, asked)]
    light = {"num_cpus": LIGHT}
    return [
        (["decode"], 4 * actors, light), (["explain"], actors, {"num_gpus": 1}),
        (["write"], 4 * actors, light),
    ]  # fmt: skip


Row = dict[str, Any]  # "part": [number], "value": [what the last operator made, or an error]


class Worker:
    """An operator, as an actor: some of the steps decode, explain, write; part and value -> value.

    What it works with is made in the actor, when it is first asked for.
    """

    def __init__(self, shared: list[Any], steps: Sequence[str]) -> None:
        """The folder's reference, in a list, so that Ray doesn't put it into every call."""
        self.shared, self.steps = shared, steps

    def __call__(self, row: Row) -> Row:
        """Runs; what is raised goes on as a value, to the driver.

        Of an error that is raised, by a constructor too, Ray would try again for ever.
        """
        value = row["value"][0] if "value" in row else None
        if not isinstance(value, Exception):
            try:
                for step in self.steps:
                    value = getattr(self, step)(int(row["part"][0]), value)
            except Exception as error:
                error.__traceback__ = error.__cause__ = error.__context__ = None
                value = error
        column = np.empty(1, dtype=object)
        column[0] = value
        return {"part": row["part"], "value": column}

    @cached_property
    def folder(self) -> Folder:
        """The folder of the results."""
        import ray

        found: Folder = ray.get(self.shared[0])
        return found

    @cached_property
    def decoder(self) -> Decoder:
        """Of the source's photos."""
        job = self.folder.job
        return Decoder(job.source, job.spec.prepare())

    @cached_property
    def runner(self) -> Runner:
        """The explainer."""
        import torch

        torch.set_num_threads(self.folder.threads)  # other sums of floats would be other bits
        return Runner(self.folder.job)

    def decode(self, part: int, _: None) -> list[Batch]:
        """The batches of a part; a photo that can't be decoded is in its batch, with the reason.

        Ray repeats what a lost actor had.  A part that is begun for the second time may hold what
        kills its decoder, so its photos are decoded each in a process of its own.
        """
        begun = self.folder.parts / f"{STAGES}decoding-{part:06d}"
        how = self.decoder.batch
        if begun.exists():
            how = partial(self.decoder.one_by_one, method="spawn")
        begun.touch()
        found = [how(photos) for photos in self.folder.job.batches(part)]
        begun.unlink(missing_ok=True)
        return found

    def explain(self, part: int, batches: list[Batch]) -> tuple[list[Rows], Layout]:
        """The part's rows, and what they are made of."""
        return list(self.runner.rows(batches)), self.runner.layout

    def write(self, part: int, explained: tuple[list[Rows], Layout]) -> tuple[float, ...]:
        """Writes the part's file; gives what `Progress.add` counts."""
        self.folder.write(part, *explained)
        return tuple(map(sum, zip(*(rows.counts for rows in explained[0]), strict=True)))
