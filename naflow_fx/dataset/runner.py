"""Batches through the explainer: rows of numbers and maps, and the time that the device worked."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from naflow_fx.dataset.decode import Batch, Photo, normalised, pixels_of
from naflow_fx.dataset.job import Job
from naflow_fx.dataset.parts import Layout, Rows
from naflow_fx.dataset.spec import Opened
from naflow_fx.errors import DatasetError
from naflow_fx.flow import AttentionFlow
from naflow_fx.flow.data import probabilities
from naflow_fx.flow.measures import entropy
from naflow_fx.selection import matching
from naflow_fx.subjects.api import GREY


class Runner:
    """Calls an explainer; every batch has the same size, so that no row depends on the others.

    Attributes:
        layout: of the maps, known after the first batch.
    """

    def __init__(self, job: Job) -> None:
        self.job, self.opened = job, job.spec.open(torch.device(job.device))
        self.prepare = job.spec.prepare()
        self.layout: Layout | None = None

    def start(self, batch: Batch) -> Pending:
        """Begins a batch; on CUDA the call returns while the device works.

        Raises:
            DatasetError: the source can't be reached any more.
        """
        if batch.gone is not None:
            raise DatasetError(f"{batch.gone}: the source can't be reached any more; when it is "
                               "back, call again: finished parts are kept")  # fmt: skip
        clock = Clock(self.opened.device)
        found = None if batch.pixels is None else self._explain(batch.pixels, batch.photos)
        clock.stop()
        return Pending(batch.photos, found, clock)

    def known_layout(self) -> Layout:
        """The layout, of a grey photo if there was none yet."""
        if self.layout is None:
            self._explain(pixels_of(self.prepare, GREY)[None], [])
        assert self.layout is not None
        return self.layout

    @torch.no_grad()
    def _explain(self, pixels: Tensor, photos: list[Photo]) -> dict[str, Tensor]:
        """Padded, normalised, explained, summed up; on the host soon, or at once on a CPU."""
        missing = self.job.batch_size - len(pixels)
        on_device = pixels.to(self.opened.device, non_blocking=True)
        padded = torch.cat([on_device, on_device.new_zeros((missing, *pixels.shape[1:]))])
        images = normalised(self.prepare, padded)
        flow = self.opened.explain(images, target=self._target(photos))
        if self.layout is None:
            self.layout = _layout(flow, self.opened, self.job.maps)
        return {name: _to_host(value) for name, value in summed_up(flow, self.layout).items()}

    def _target(self, photos: list[Photo]) -> Any:
        """What the explainer is asked for; the predicted class where a label is unknown."""
        if self.job.target != "label":
            return self.job.target
        labels = [photo.label for photo in photos]
        return labels + [-1] * (self.job.batch_size - len(labels))


class Clock:
    """How long the device works on what is called between making it and `stop`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.begin: Any = self._now()

    def stop(self) -> None:
        """The end."""
        self.end: Any = self._now()

    def seconds(self) -> float:
        """Waits for the device, then tells."""
        if self.device.type != "cuda":
            return float(self.end - self.begin)
        self.end.synchronize()
        return float(self.begin.elapsed_time(self.end)) / 1000

    def _now(self) -> Any:
        if self.device.type != "cuda":
            return time.perf_counter()
        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.device))  # it may be cuda:1
        return event


@dataclass(frozen=True)
class Pending:
    """A batch under way."""

    photos: list[Photo]
    found: dict[str, Tensor] | None
    clock: Clock

    def result(self) -> Rows:
        """Waits for it; rows of what could be opened."""
        seconds = self.clock.seconds()
        good = [row for row, photo in enumerate(self.photos) if photo.error is None]
        kept = [self.photos[row] for row in good]
        failed = [photo for photo in self.photos if photo.error is not None]
        found = {} if self.found is None else self.found
        arrays = {name: tensor.numpy()[good] for name, tensor in found.items()}
        return Rows(kept, arrays, failed, seconds)


def summed_up(flow: AttentionFlow, layout: Layout) -> dict[str, Tensor]:
    """Scalars [B], measures [B, 6, layers] and stored maps [B, values] of a flow."""
    measures, maps = [], []
    for name, raw in flow.maps.items():
        m = raw.flatten(1).float() if raw.ndim > 1 else raw[:, None].float()
        nothing = torch.full_like(m[:, 0], math.nan)
        largest = m.amax(1)
        told = [
            flow.residual.get(name, nothing).float(),
            flow.norm_ratio.get(name, nothing).float(),
        ]
        active = (m > 0).float().mean(1)
        measures.append(torch.stack([*told, m.mean(1), largest, active, entropy(m)], 1))
        if name in layout.stored:
            tiny = torch.finfo(torch.float32).tiny
            maps.append((m / largest.clamp_min(tiny)[:, None]).half())
    empty = flow.score.new_zeros((len(flow), 0), dtype=torch.float16)
    return {
        **_scalars(flow),
        "measures": torch.stack(measures, 2),
        "maps": torch.cat(maps, 1) if maps else empty,
    }


def _scalars(flow: AttentionFlow) -> dict[str, Tensor]:
    """Prediction (-1: the output is no row of class scores), its probability, score, target."""
    output = flow.output
    known = isinstance(output, Tensor) and output.ndim == 2 and output.is_floating_point()
    unknown = torch.full_like(flow.score, -1, dtype=torch.int64)
    probability, prediction = torch.full_like(flow.score, math.nan, dtype=torch.float32), unknown
    if known:
        probability, prediction = probabilities(output.float()).max(1)
    target = unknown if flow.target is None else flow.target
    return {
        "prediction": prediction,
        "probability": probability,
        "score": flow.score.double(),
        "target": target,
    }


def _layout(flow: AttentionFlow, opened: Opened, globs: tuple[str, ...] | None) -> Layout:
    shapes = {name: tuple(m.shape[1:]) for name, m in flow.maps.items()}
    chosen, idle = matching(shapes, shapes if globs is None else globs)
    if idle:
        raise DatasetError(f"maps={idle}: no layer that is computed has such a name; wanted some "
                           f"of {', '.join(list(shapes)[:8])}, ...")  # fmt: skip
    return Layout(opened.identity, shapes, tuple(chosen), opened.class_names)


def _to_host(tensor: Tensor) -> Tensor:
    """In main memory; from CUDA without waiting, `Clock.seconds` waits for it."""
    if tensor.device.type != "cuda":
        return tensor.cpu()
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
