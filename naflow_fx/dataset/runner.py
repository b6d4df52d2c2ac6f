"""Batches through the explainer: rows of numbers and maps; the local engine: whole parts.

Decoding, explaining and writing go on side by side.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, pairwise
from typing import Any

import torch
from torch import Tensor

from naflow_fx.dataset import MAP, MEASURES
from naflow_fx.dataset.decode import GONE, Batch, Decoder, Photo, default_workers, pixels_of
from naflow_fx.dataset.folder import Folder
from naflow_fx.dataset.job import RunJob
from naflow_fx.dataset.parts import Layout, Rows
from naflow_fx.dataset.progress import Progress
from naflow_fx.errors import DatasetError
from naflow_fx.flow import AttentionFlow
from naflow_fx.flow.data import probabilities
from naflow_fx.flow.measures import entropy
from naflow_fx.models.preprocess import Preprocessing
from naflow_fx.selection import matching
from naflow_fx.subjects.api import GREY

AHEAD = 2  # parts that wait to be written: results don't pile up


class Runner:
    """Calls an explainer; every batch has the same size, so that no row depends on the others."""

    def __init__(self, job: RunJob) -> None:
        self.job, self.device = job, torch.device(job.device)
        self.prepare, self.opened = job.spec.prepare(), job.spec.open(self.device)
        self._layout: Layout | None = None

    def rows(self, batches: Iterable[Batch]) -> Iterator[Rows]:
        """Rows of each batch, in order; the next batch is under way before they are fetched.

        Raises:
            DatasetError: the source can't be reached any more.
        """
        begun: Iterator[Any] = chain(map(self._begin, batches), (None,))
        for fetch, _ in pairwise(begun):
            yield fetch()

    @property
    def layout(self) -> Layout:
        """Of the maps: as in the first batch, or of a grey photo if there was none yet."""
        if self._layout is None:
            self._explain(pixels_of(self.prepare, GREY)[None], [])
        assert self._layout is not None
        return self._layout

    def _begin(self, batch: Batch) -> Callable[[], Rows]:
        """Begins a batch; gives what waits for its rows: a CUDA device still works on them."""
        if any(photo.reason == GONE for photo in batch.photos):
            raise DatasetError(f"{self.job.source.place}: the source can't be reached any more; "
                               "when it is back, call again: finished parts are kept"
                               )  # fmt: skip
        begin = mark(self.device)
        found = {} if batch.pixels is None else self._explain(batch.pixels, batch.photos)
        end = mark(self.device)

        def fetch() -> Rows:
            busy, count = seconds(begin, end), len(batch.photos)  # now the arrays are there
            arrays = {name: tensor.numpy()[:count] for name, tensor in found.items()}
            return Rows(batch.photos, arrays, busy)

        return fetch

    @torch.no_grad()
    def _explain(self, pixels: Tensor, photos: list[Photo]) -> dict[str, Tensor]:
        """Padded, normalised, explained, summed up; on the host soon, or at once on a CPU."""
        missing = self.job.batch_size - len(pixels)
        on_device = pixels.to(self.device, non_blocking=True)
        padded = torch.cat([on_device, on_device.new_zeros((missing, *pixels.shape[1:]))])
        prepare = self.prepare
        images = prepare.normalise(padded) if isinstance(prepare, Preprocessing) else padded
        flow = self.opened.explain(images, target=self._target(photos))
        if self._layout is None:
            self._layout = self._laid_out(flow)
        columns = summed_up(flow, self._layout.stored)  # pinned on the host: `seconds` waits
        return {name: value.to("cpu", non_blocking=True) for name, value in columns.items()}

    def _target(self, photos: list[Photo]) -> Any:
        """What the explainer is asked for; the predicted class where a label is unknown."""
        if self.job.target != "label":
            return self.job.target
        labels = [photo.label for photo in photos]
        return labels + [-1] * (self.job.batch_size - len(labels))

    def _laid_out(self, flow: AttentionFlow) -> Layout:
        shapes = {name: tuple(m.shape[1:]) for name, m in flow.maps.items()}
        chosen, idle = matching(shapes, shapes if self.job.maps is None else self.job.maps)
        if idle:
            raise DatasetError(f"maps={idle}: no layer that is computed has such a name; wanted "
                               f"some of {', '.join(list(shapes)[:8])}, ...")  # fmt: skip
        return Layout(self.opened.identity, shapes, tuple(chosen), self.opened.class_names)


def run_parts(
    folder: Folder, parts: Sequence[int], workers: int | None, progress: Progress
) -> None:
    """Makes parts, one after the other: the local engine, also of each rank of torchrun.

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


def mark(device: torch.device) -> Any:
    """The end of what was called so far, for `seconds`."""
    if device.type != "cuda":
        return time.perf_counter()
    event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))  # it may be cuda:1
    return event


def seconds(begin: Any, end: Any) -> float:
    """How long the device worked between two marks; waits for the second one."""
    if isinstance(end, float):
        return float(end - begin)
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1000


def summed_up(flow: AttentionFlow, stored: Iterable[str]) -> dict[str, Tensor]:
    """The columns of B photos: scalars [B], measures [B, layers], stored maps [B, H W]."""
    found, measures = _scalars(flow), []
    for name, raw in flow.maps.items():
        m = raw.reshape(len(raw), -1).float()
        nothing, largest = torch.full_like(m[:, 0], math.nan), m.amax(1)
        told = [of.get(name, nothing).float() for of in (flow.residual, flow.norm_ratio)]
        active = (m > 0).float().mean(1)
        measures.append(torch.stack([*told, m.mean(1), largest, active, entropy(m)]))
        if name in stored:
            tiny = torch.finfo(torch.float32).tiny
            found[MAP + name] = (m / largest.clamp_min(tiny)[:, None]).half()
    return {**found, **dict(zip(MEASURES, torch.stack(measures, 2), strict=True))}


def _scalars(flow: AttentionFlow) -> dict[str, Tensor]:
    """Prediction (-1: the output is no row of class scores), its probability, score, target."""
    output = flow.output
    unknown = torch.full_like(flow.score, -1, dtype=torch.int64)
    probability, prediction = torch.full_like(flow.score, math.nan, dtype=torch.float32), unknown
    if isinstance(output, Tensor) and output.ndim == 2 and output.is_floating_point():
        probability, prediction = probabilities(output.float()).max(1)
    target = unknown if flow.target is None else flow.target
    return {
        "prediction": prediction,
        "probability": probability,
        "score": flow.score.double(),
        "target": target,
    }
