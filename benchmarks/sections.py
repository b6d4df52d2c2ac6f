"""The sections of the benchmark: each measures one thing and returns plain data."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import memory
from benchmarks.accuracy import accuracy
from benchmarks.breakdown import breakdown
from benchmarks.correctness import correctness
from benchmarks.peers import PEERS, as_found, hookable
from benchmarks.pipeline import LABELS, pipeline
from benchmarks.subjects import (
    DEFAULT,
    FLOAT32,
    LARGER,
    LAYERCAM,
    MODELS,
    SETTINGS,
    Setting,
    forward_backward,
    model,
    photos,
)
from benchmarks.timing import interleaved, seconds, time_box


@dataclass(frozen=True)
class Plan:
    """What one run of the benchmark measures.

    Attributes:
        device, threads: where.
        batch: the larger batch.
        budget: seconds of one timing section.
        compile_box: seconds that torch.compile of one program may take.
        full: every model compiled, the largest sizes.
    """

    device: str
    threads: int
    batch: int
    budget: float
    compile_box: float
    full: bool
    models: tuple[str, ...] = MODELS

    def sections(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Names and what measures them, the most wanted first; long ones without a clock, last."""
        for name in self.models:
            yield f"correctness/{name}", partial(_correctness, self, name)
            yield f"compile/{name}", partial(_compile, self, name)
            yield f"count/{name}", partial(_count, name)
        for name in self.models:
            yield f"speed/{name}/1", partial(_speed, self, name, 1)
        for what in memory.WHAT:
            yield f"memory/resnet50/8/{what}", partial(_memory, self, "resnet50", 8, what)
        yield "products/bfloat16", partial(_products, self)
        for name in self.models:
            yield f"breakdown/{name}", partial(_breakdown, self, name)
        for kind in ("pt2", "onnx"):
            yield f"export/resnet18/{kind}", partial(_export, self, kind)
        for name in self.models:
            yield f"compiled/{name}/1/layercam", partial(_compiled, self, name, 1, LAYERCAM)
        for name in self.models:
            yield f"speed/{name}/{self.batch}", partial(_speed, self, name, self.batch)
        for batch, size in self._growth():
            yield f"growth/{batch}/{size}", partial(_growth, self, batch, size)
        for name in self.models if self.full else self.models[:1]:
            for setting in (DEFAULT, FLOAT32):
                compiled = partial(_compiled, self, name, 1, setting)
                yield f"compiled/{name}/1/{setting.name}", compiled
            if self.full or self.device == "cuda":
                large = partial(_compiled, self, name, self.batch, DEFAULT)
                yield f"compiled/{name}/{self.batch}/{DEFAULT.name}", large
        for engine in LABELS:
            yield f"pipeline/{engine}", partial(_pipeline, self, engine)
        for name in (*self.models, LARGER):
            for size in (112, 224):
                yield f"accuracy/{name}/{size}", partial(_accuracy, self, name, size)

    def _growth(self) -> list[tuple[int, int]]:
        points = [(1, 224), (8, 224), (1, 448), (32, 224)]
        return points + ([(64, 224), (1, 1024)] if self.full else [])


def _correctness(plan: Plan, name: str) -> Any:
    return correctness(model(name, plan.device), photos(2, 64, plan.device))


def _compile(plan: Plan, name: str) -> Any:
    net, x = model(name, plan.device), photos(1, 224, plan.device)
    found = {}
    for setting in (DEFAULT, LAYERCAM):
        start = time.process_time()
        took = seconds(partial(setting.compile, net, x))
        found[setting.name] = {"seconds": took, "processor": time.process_time() - start}
    return found


def _count(name: str) -> Any:
    """Multiplications, which no load changes, as tests/test_cost.py has them, on small images."""
    from test_cost import multiplications

    net, x = model(name, "cpu").requires_grad_(False), photos(1, 64, "cpu")
    own = x.clone().requires_grad_()
    unit = multiplications(lambda: net(own).amax(1).sum().backward())
    found = {}
    for setting in SETTINGS:
        explainer = setting.compile(net, x)
        found[setting.name] = multiplications(partial(explainer, x)) / unit
    return found


def _speed(plan: Plan, name: str, batch: int) -> Any:
    net, x = model(name, plan.device), photos(batch, 224, plan.device)
    runs: dict[str, Callable[[], Any]] = {}
    for setting in SETTINGS:
        runs[setting.name] = partial(setting.compile(net, x), x)
    sites = LAYERCAM.compile(net, x).layers
    modules = list(hookable(net, sites))
    for label, peer in PEERS.items():
        if not peer.slow or (batch == 1 and (plan.full or name == plan.models[0])):
            runs[label] = peer.make(net, x.clone().requires_grad_(), modules)
    with as_found(net):
        return interleaved(lambda: forward_backward(net, x), runs, plan.budget)


def _compiled(plan: Plan, name: str, batch: int, setting: Setting) -> Any:
    net, x = model(name, plan.device), photos(batch, 224, plan.device)
    plain = setting.compile(net, x)
    torch.compiler.reset()
    fast = plain.compiled()
    if batch > 1:  # one program for this batch, not a second one for all
        torch._dynamo.config.automatic_dynamic_shapes = False
    start = time.perf_counter()
    with time_box(plan.compile_box):
        flow = fast(x)
    compile_seconds = time.perf_counter() - start
    wanted = plain(x)
    difference = max(
        float((flow.maps[k] - m).abs().max() / m.abs().max().clamp(min=1e-30))
        for k, m in wanted.maps.items()
        if m.any()
    )
    runs = {"compiled": partial(fast, x), "uncompiled": partial(plain, x)}
    found = interleaved(lambda: forward_backward(net, x), runs, plan.budget)
    return {"torch.compile": compile_seconds, "largest difference": difference, **found}


def _memory(plan: Plan, name: str, batch: int, what: str) -> Any:
    given = name, batch, what, plan.device, plan.threads
    if plan.device != "cpu":
        return {"bytes": memory.measured(*given)}
    runs = sorted(memory.measured(*given) for _ in range(memory.RUNS))  # the heap's holes vary
    return {
        "bytes": runs[memory.RUNS // 2],
        "low": runs[0],
        "high": runs[-1],
        "apart": memory.measured(*given, apart=True),
    }


def _accuracy(plan: Plan, name: str, size: int) -> Any:
    return accuracy(model(name, plan.device), photos(2, size, plan.device))


def _export(plan: Plan, kind: str) -> Any:
    """Seconds to write every call site of resnet18, for images of 64 pixels."""
    explainer = FLOAT32.compile(model("resnet18", plan.device), photos(1, 64, plan.device))
    write = explainer.export if kind == "pt2" else explainer.to_onnx
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"explainer.{kind}"
        took = seconds(partial(write, path))
        return {"seconds": took, "bytes": path.stat().st_size}


def _breakdown(plan: Plan, name: str) -> Any:
    net, x = model(name, plan.device), photos(1, 224, plan.device)
    return breakdown(DEFAULT.compile(net, x), x)


def _products(plan: Plan) -> Any:
    """How much faster bfloat16 multiplies than float32: what bounds the solver's steps."""
    a = torch.randn(1024, 1024, device=plan.device)
    low = a.bfloat16()
    return interleaved(lambda: a @ a, {"bfloat16": lambda: low @ low}, plan.budget / 10)


def _pipeline(plan: Plan, engine: str) -> Any:
    try:
        return pipeline(plan.device, engine)
    finally:
        torch.set_num_threads(plan.threads)


def _growth(plan: Plan, batch: int, size: int) -> Any:
    net, x = model("resnet18", plan.device), photos(batch, size, plan.device)
    runs = {DEFAULT.name: partial(DEFAULT.compile(net, x), x)}
    rounds = 5 if batch * size * size <= 8 * 224 * 224 else 2
    return interleaved(lambda: forward_backward(net, x), runs, plan.budget / 4, rounds)
