"""Times, memory and correctness against other libraries: `python -m benchmarks`.

    python -m benchmarks                         the CPU, about 15 minutes
    python -m benchmarks --device cuda           a CUDA machine, within 8 minutes
    python -m benchmarks --sections 'speed/*'    these sections only; the others keep their figures
    python -m benchmarks --report                writes docs/benchmarks.md from the JSON files again

Results go to docs/benchmarks-cpu.json and docs/benchmarks-cuda.json, and from both into
docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import datetime
import fnmatch
import json
import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from benchmarks.report import write_report
from benchmarks.sections import Plan
from benchmarks.subjects import MODELS, ROOT, machine
from benchmarks.timing import load, time_box

DOCS = ROOT / "docs"
GRACE = 40.0  # seconds for the section that is under way when the minutes are over


def main() -> None:
    """Measures section by section; after each, its figures are in the file."""
    given = arguments()
    if not given.report:
        warnings.simplefilter("ignore")
        torch.set_num_threads(given.threads)
        measure(given)
    print(write_report(given.docs))


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="of " + ", ".join(MODELS))
    parser.add_argument("--batch", type=int, help="the larger batch (CPU: 8, CUDA: 32)")
    parser.add_argument("--minutes", type=float, help="then no section begins (CPU: 14, CUDA: 7)")
    parser.add_argument("--seconds", type=float, help="of one table of times (CPU: 30, CUDA: 12)")
    parser.add_argument("--compile-minutes", type=float, help="of one torch.compile")
    parser.add_argument("--sections", nargs="+", default=["*"], help="globs")
    parser.add_argument("--full", action="store_true", help="every model compiled; larger sizes")
    parser.add_argument("--report", action="store_true", help="only write the report")
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder to write to")
    return parser.parse_args()


def plan(given: argparse.Namespace) -> Plan:
    """What the arguments ask for."""
    cuda, full = given.device == "cuda", given.full
    box = given.compile_minutes or (60 if full else 2.5 if cuda else 4)
    return Plan(
        device=given.device,
        threads=given.threads,
        batch=given.batch or (32 if cuda else 8),
        budget=given.seconds or (12 if cuda else 30),
        compile_box=60 * box,
        full=full,
        models=tuple(given.models),
    )


def measure(given: argparse.Namespace) -> None:
    """Runs the sections, each recorded with its hour and the machine's load."""
    # Inductor's caches of earlier runs would hide how long it takes
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp(prefix="naflow-bench-")
    path: Path = given.docs / f"benchmarks-{given.device}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"sections": {}}
    found["machine"] = machine(given.device)
    minutes = given.minutes or (1e5 if given.full else 7 if given.device == "cuda" else 14)
    end = time.monotonic() + 60 * minutes
    for name, run in plan(given).sections():
        if not any(fnmatch.fnmatch(name, glob) for glob in given.sections):
            continue
        start = time.monotonic()
        record: dict[str, Any] = {"load": load(), "threads": given.threads}
        record["at"] = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="minutes")
        if start > end:
            record["error"] = f"not measured: {minutes:.0f} minutes were over"
        else:
            try:
                with time_box(end - start + GRACE):
                    record["found"] = run()
            except Exception as error:
                text = str(error).strip().splitlines() or [""]
                record["error"] = f"{type(error).__name__}: {text[0][:200]}"
        record["took"] = time.monotonic() - start
        found["sections"][name] = record
        path.write_text(json.dumps(found, indent=1) + "\n")
        print(f"{name}: {record['took']:.0f} s {record.get('error', '')}", flush=True)


if __name__ == "__main__":
    main()
