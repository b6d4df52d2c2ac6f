"""Running checks one after the other, each in its time box; what is done is always written."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.timing import OutOfTime, time_box

MINUTES = 7.5  # of a whole run, for which the boxes of checks are meant
LEAST = 2.0  # seconds; a check isn't begun with less


@dataclass(frozen=True)
class Found:
    """What a check measured.

    Attributes:
        measured: in words, of what was wanted.
        ok: whether it is; None of a figure that nothing is wanted of.
        figures: the numbers.
    """

    measured: str
    ok: bool | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)


class Skipped(Exception):
    """A check that this machine can't run, and why."""


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name, wanted: what it looks at, and what it wants to see.
        run: measures.
        cuda: it needs a CUDA device.
        box: seconds that it may take, of a run of MINUTES; in proportion of a longer one.
    """

    name: str
    wanted: str
    run: Callable[[], Found]
    cuda: bool = False
    box: float = 60.0


@dataclass
class Row:
    """A check in the table; result: "ok", "failed", "skipped", "not run" or "measured"."""

    check: str
    wanted: str
    measured: str = "the run ended before"
    result: str = "not run"
    seconds: float = 0.0
    figures: Mapping[str, Any] = field(default_factory=dict)


def run_checks(
    checks: Iterable[Check], device: str, minutes: float, write: Callable[[Sequence[Row]], None]
) -> list[Row]:
    """The table; it is written before the first check and after each."""
    checks = list(checks)
    rows = [Row(check.name, check.wanted) for check in checks]
    end = time.monotonic() + 60 * minutes
    write(rows)
    for check, row in zip(checks, rows, strict=True):
        start = time.monotonic()
        if check.cuda and device != "cuda":
            row.measured = "needs a CUDA device"
        elif end - start < LEAST:
            row.result, row.measured = "skipped", f"the {minutes:g} minutes were over"
        else:
            _run(check, row, min(check.box * minutes / MINUTES, end - start))
        row.seconds = round(time.monotonic() - start, 1)
        write(rows)
        print(f"{row.result:9}{row.check}: {row.measured} ({row.seconds:.0f} s)", flush=True)
    return rows


def _run(check: Check, row: Row, seconds: float) -> None:
    """Fills in a row, whatever the check raises."""
    start = time.monotonic()
    try:
        with time_box(seconds):
            found = check.run()
    except Skipped as reason:
        row.result, row.measured = "skipped", str(reason)
    except Exception as error:  # a check that fails must not stop the others
        if isinstance(error, OutOfTime) or time.monotonic() - start >= seconds:
            row.result, row.measured = "skipped", f"not done after {seconds:.0f} s"
        else:
            row.result, row.measured = "failed", first_line(error)
    else:
        row.measured, row.figures = found.measured, found.figures
        row.result = {True: "ok", False: "failed", None: "measured"}[found.ok]


def first_line(error: BaseException) -> str:
    """What an error says first, with its kind."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]


def write_files(stem: Path, facts: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """STEM.json, with all figures, and STEM.md, one table."""
    data = {"facts": facts, "checks": [asdict(row) for row in rows]}
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".json").write_text(json.dumps(data, indent=1) + "\n")
    stem.with_suffix(".md").write_text(table(facts, rows))


def table(facts: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """The page."""
    results = [row.result for row in rows]
    counts = ", ".join(f"{results.count(r)} {r}" for r in dict.fromkeys(results))
    lines = ["| check | wanted | measured | result |", "|---|---|---|---|"]
    for row in rows:
        cells = (row.check, row.wanted, row.measured, row.result)
        lines.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
    known = "; ".join(f"{name} {value}" for name, value in facts.items())
    return HEAD.format(facts=known, counts=counts) + "\n".join(lines) + "\n"


HEAD = """# GPU check

Made by `make gpu-check`, which runs `python -m benchmarks.gpu_check` from a copy of the tree.
Machine: {facts}.

Cosines are of maps, over call sites and photos; where one is given it is the smallest, two are the
mean and the fifth percentile. Comparisons are made without TF32, times with torch's own settings;
times are multiples of an eager float32 forward + backward pass to the input, run just before and
just after: median (quartiles; n repetitions).

{counts}.

"""
