"""Throughput of batch runs as a share of the explainer's own, on the same machine.

    python -m benchmarks.pipeline                  single process, and Ray with two workers
    python -m benchmarks.pipeline --photos 512 --rounds 1 --engines local

Each round measures the explainer alone, on batches that are in memory, just before and just after
the run, so that the machine's load hits both; the share is of the mean of the two.  Both have all
cores: one process with a thread a core, or two with half of the threads each.  A run's rate is that
of its last three quarters, told by when its files were written: before, processes start, load torch
and compile, which takes as long in a run of 50,000 photos.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import naflow_fx as nf
from benchmarks.subjects import ROOT, TRAINED
from benchmarks.timing import load, spread
from naflow_fx.models.preprocess import open_photo

BATCH = 8
PART = 32
LABELS = {"local": "single process", "ray": "Ray, two workers"}


def pipeline(
    device: str, engine: str, photos: int = 384, rounds: int = 2, size: int = 112
) -> dict[str, Any]:
    """The section: ratio (median), low, high, repetitions, threads, photos a second of both.

    Args:
        device: where the explainer runs.
        engine: "local", or "ray" with two actors.  Two explainers share the machine then, so
            the unit is the rate of two that run at the same time, each in a process of its own.
        photos: JPEG files of 500 x 400 pixels.
        rounds: how often.
        size: pixels of the network's input; a smaller one is harder for the pipeline.
    """
    ratios, own, run, busy = [], [], [], []
    actors = 2 if engine == "ray" else 1
    torch.set_num_threads(threads := max(1, len(os.sched_getaffinity(0)) // actors))
    with tempfile.TemporaryDirectory(prefix="naflow-bench-") as place:
        folder = _photos(Path(place) / "photos", photos)
        before = alone(device, actors, size)
        for number in range(rounds):
            out = Path(place) / f"out{number}"
            done = _run(folder, out, device, engine, actors, size)
            rate = steady_rate(out)
            after = alone(device, actors, size)
            unit = (before + after) / 2
            ratios.append(rate / unit)
            own, run = [*own, unit], [*run, rate]
            busy.append(done.device_share)
            before = after
    low, high = spread(ratios)
    return {
        "ratio": statistics.median(ratios), "low": low, "high": high, "repetitions": rounds,
        "photos": photos, "processes": actors, "threads": threads,
        "own photos a second": statistics.median(own),
        "run photos a second": statistics.median(run),
        "device busy": statistics.median(busy),
    }  # fmt: skip


def steady_rate(out: Path) -> float:
    """Photos a second of a run, without the first quarter of its parts."""
    written = sorted(file.stat().st_mtime for file in (out / "parts").iterdir())
    start = len(written) // 4
    return (len(written) - 1 - start) * PART / (written[-1] - written[start])


def alone(device: str, processes: int, size: int) -> float:
    """Photos a second of explainers that are given batches from memory, all together."""
    if processes == 1:
        return _rate(device, size)
    context = multiprocessing.get_context("spawn")
    given = (context.Barrier(processes), torch.get_num_threads())
    with context.Pool(processes, _meet, given) as pool:
        return sum(pool.map(_rate_together, [(device, size)] * processes, chunksize=1))


def _meet(barrier: Any, threads: int) -> None:
    """Keeps the barrier for `_rate_together`, and the processes to their threads."""
    torch.set_num_threads(threads)
    globals()["_barrier"] = barrier


def _rate_together(given: tuple[str, int]) -> float:
    return _rate(*given, globals()["_barrier"].wait)


def _rate(device: str, size: int, ready: Any = None, batches: int = 4) -> float:
    """Photos a second of one explainer; measured once `ready` has returned."""
    explainer = _explainer(device, size)
    images = torch.randn(BATCH, 3, size, size, device=device)
    explainer(images)
    if ready is not None:
        ready()
    start = time.perf_counter()
    for _ in range(batches):
        explainer(images).score.cpu()
    return batches * BATCH / (time.perf_counter() - start)


@functools.cache
def _explainer(device: str, size: int) -> Any:
    return spec(size).open(torch.device(device)).explain


def spec(size: int) -> nf.ExplainerSpec:
    """The bundled model, at a size."""
    prepare = nf.models.card(TRAINED).preprocessing
    small = dataclasses.replace(prepare, resize=size * 8 // 7, crop=size)
    return nf.ExplainerSpec(TRAINED, preprocessing=small)


def _run(
    folder: Path, out: Path, device: str, engine: str, actors: int, size: int
) -> nf.DatasetRun:
    given: dict[str, Any] = {"engine": engine}
    if engine == "ray":
        given["actors"] = actors
    return nf.explain_dataset(spec(size), folder, out, device=device, batch_size=BATCH,
                              part_size=PART, progress=False, **given)  # fmt: skip


def _photos(folder: Path, count: int) -> Path:
    """The photos of examples/, cut differently each time."""
    folder.mkdir()
    files = sorted((ROOT / "examples").glob("*.png"))
    for number in range(count):
        photo = open_photo(files[number % len(files)])
        left, top = number * 7 % (photo.width // 4), number * 5 % (photo.height // 4)
        cut = photo.crop((left, top, photo.width * 3 // 4 + left, photo.height * 3 // 4 + top))
        cut.resize((500, 400)).save(folder / f"{number:04d}.jpg", quality=90)
    return folder


def main() -> None:
    """Measures and prints one line an engine."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipeline", description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--photos", type=int, default=384)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--engines", nargs="+", choices=tuple(LABELS), default=list(LABELS))
    given = parser.parse_args()
    for engine in given.engines:
        found = pipeline(given.device, engine, given.photos, given.rounds, given.size)
        words = f"{TRAINED}, {given.size} pixels, {LABELS[engine]}, load {load():.1f}"
        print(f"{words}: {json.dumps(found)}", flush=True)


if __name__ == "__main__":
    main()
