"""Programs made of explainers: compiled, with CUDA graphs, packaged, exported and moved."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import torch

import naflow_fx as nf
from benchmarks.gpu_check.checks import ratios
from benchmarks.gpu_check.lab import (
    NEAR,
    SAME,
    Lab,
    exact,
    explainer,
    maps,
    near,
    network,
    same,
)
from benchmarks.gpu_check.run import Check, Found, Skipped
from benchmarks.subjects import DEFAULT, FLOAT32, LAYERCAM, Setting
from naflow_fx.artefacts import load

COMPILERS = ("c++", "g++", "clang++")
GRAPHS = "reduce-overhead"
MODES = (None, GRAPHS)


def programs(lab: Lab) -> Iterator[Check]:
    """What torch makes of the first network's program."""
    name = lab.names[0]
    stage = f"{name}, {lab.last}"
    yield Check(f"pt2 of {stage}: exported on the CPU, loaded on {lab.device}", SAME,
                partial(_exported, lab, "cpu", lab.device))  # fmt: skip
    yield Check(f"pt2 of {stage}: exported on cuda, loaded on the CPU", SAME,
                partial(_exported, lab, "cuda", "cpu"), cuda=True)  # fmt: skip
    yield from (_compile(lab, DEFAULT, mode) for mode in MODES if not lab.quick)
    yield Check(f"AOTInductor package of {stage}", SAME, partial(_packaged, lab), box=100)
    yield from (_compile(lab, LAYERCAM, mode) for mode in MODES)


def _compile(lab: Lab, setting: Setting, mode: str | None) -> Check:
    call = "compiled()" if mode is None else f'compiled("{mode}")'
    return Check(f"{call} of {lab.names[0]}, {setting.name}", f"{NEAR}; x forward + backward",
                 partial(_compiled, lab, setting, mode), cuda=mode is not None,
                 box=150)  # fmt: skip


@cache
def _stage(lab: Lab, device: str) -> nf.Explainer:
    """Of the last stage only: the same steps, exported in seconds; a quick one takes none."""
    setting = LAYERCAM if lab.quick else FLOAT32
    return setting.compile(network(lab.names[0], device), lab.photos(1, device), layers=lab.last)


def _exported(lab: Lab, made: str, used: str) -> Found:
    with tempfile.TemporaryDirectory() as folder, exact():
        path = _stage(lab, made).export(Path(folder) / "explainer.pt2")
        found = maps(load(path, used), lab.photos(2, used))
        return same(found, maps(_stage(lab, "cpu"), lab.photos(2, "cpu")))


def _packaged(lab: Lab) -> Found:
    _compiler()
    with tempfile.TemporaryDirectory() as folder, exact():
        start = time.monotonic()
        path = _stage(lab, lab.device).package(Path(folder) / "explainer.pt2")
        took = time.monotonic() - start
        found = maps(load(path, trusted=True), lab.photos(2))
        wanted = maps(_stage(lab, "cpu"), lab.photos(2, "cpu"))
        return same(found, wanted, f"; made in {took:.0f} s")


def _compiled(lab: Lab, setting: Setting, mode: str | None) -> Found:
    """Of one photo, then of another: neither result may change when the program runs again."""
    _compiler()
    torch.compiler.reset()
    name, (first, second) = lab.names[0], lab.photos(2).split(1)
    plain = explainer(lab, name, setting, lab.device)
    fast = plain.compiled(mode)
    counters = torch._dynamo.utils.counters
    counters.clear()
    with exact():
        start = time.monotonic()
        one = fast(first)
        took = time.monotonic() - start
        two = fast(second)
        found = {site: torch.cat([m, two.maps[site]]) for site, m in one.maps.items()}
        wanted = maps(plain, lab.photos(2))
    agree = near(found, wanted, f"; made in {took:.0f} s")
    runs = {"compiled": partial(fast, first), "uncompiled": partial(plain, first)}
    fast_ones = ratios(lab, network(name, lab.device), first, runs)
    without = mode == GRAPHS and counters["inductor"]["cudagraph_skips"]
    text = f"{agree.measured}; {fast_ones.measured}" + "; CUDA graphs skipped" * bool(without)
    ok = bool(agree.ok) and fast_ones.ok is not False and not without
    return Found(text, ok, {**agree.figures, **fast_ones.figures, "seconds": took})


def _compiler() -> None:
    """Raises where Inductor has no compiler to call."""
    if not any(map(shutil.which, COMPILERS)):
        raise Skipped("there is no C++ compiler")
