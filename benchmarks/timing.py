"""Ratios of times: contenders and the baseline take turns, so that the machine's load hits both."""

from __future__ import annotations

import math
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

Run = Callable[[], Any]
LONG = 0.05  # seconds; a shorter baseline is repeated, and the median taken


class OutOfTime(Exception):
    """A time box is over."""


@contextmanager
def time_box(seconds: float) -> Iterator[None]:
    """Raises OutOfTime in the body, once that many seconds have passed; boxes may be nested."""

    def stop(*_: Any) -> None:
        raise OutOfTime(f"not done after {limit:.0f} s")

    handler = signal.signal(signal.SIGALRM, stop)
    outer, _ = signal.getitimer(signal.ITIMER_REAL)
    start = time.monotonic()
    limit = min(seconds, outer or seconds)
    signal.setitimer(signal.ITIMER_REAL, max(limit, 0.01))
    try:
        yield
    finally:
        left = outer and max(outer - (time.monotonic() - start), 0.01)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, left)


def seconds(run: Run) -> float:
    """How long one call takes, the accelerator's queue included."""
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def baseline_seconds(run: Run) -> float:
    """Of the baseline: the median of three where it is short."""
    first = seconds(run)
    return first if first > LONG else statistics.median([first, seconds(run), seconds(run)])


def interleaved(
    baseline: Run, contenders: Mapping[str, Run], budget: float, rounds: int = 15
) -> dict[str, dict[str, Any]]:
    """For each contender the time as a multiple of the baseline's just before and after it.

    Args:
        baseline: the unit.
        contenders: what is measured, in turns.
        budget: seconds for all; every contender is measured once, whatever it takes.
        rounds: at most.

    Returns:
        For each ``ratio`` (median), ``low`` and ``high`` (quartiles), ``repetitions``,
        ``seconds`` (median), ``baseline_seconds``; or ``error``.
    """
    ratios: dict[str, list[float]] = {name: [] for name in contenders}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    units: dict[str, list[float]] = {name: [] for name in contenders}
    errors: dict[str, str] = {}
    spent = dict.fromkeys(contenders, 0.0)
    share = budget / max(len(contenders), 1)
    seconds(baseline)

    def record(name: str, took: float, unit: float) -> None:
        ratios[name].append(took / unit)
        times[name].append(took)
        units[name].append(unit)

    for name, run in contenders.items():
        try:
            first = seconds(run)  # warm up
        except OutOfTime:
            raise
        except Exception as error:
            errors[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            continue
        spent[name] = first
        if first > share / 2:  # it counts where there is no time for another
            record(name, first, baseline_seconds(baseline))
    for done in range(rounds):
        for name, run in contenders.items():
            runs = 1 + done  # so far
            if name in errors or (ratios[name] and spent[name] * (1 + 1 / runs) > share):
                continue
            before = baseline_seconds(baseline)
            took = seconds(run)
            unit = (before + baseline_seconds(baseline)) / 2
            record(name, took, unit)
            spent[name] += took + 2 * unit
    found: dict[str, dict[str, Any]] = {name: {"error": text} for name, text in errors.items()}
    for name in (n for n in contenders if n not in errors):
        low, high = spread(ratios[name])
        found[name] = {
            "ratio": statistics.median(ratios[name]),
            "low": low,
            "high": high,
            "repetitions": len(ratios[name]),
            "seconds": statistics.median(times[name]),
            "baseline_seconds": statistics.median(units[name]),
        }
    return found


def spread(values: list[float]) -> tuple[float, float]:
    """The quartiles; the extremes of fewer than four values."""
    if len(values) < 4:
        return min(values), max(values)
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def load() -> float:
    """How many processes wanted a core in the last minute, on average."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan
