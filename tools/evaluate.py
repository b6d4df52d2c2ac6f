"""Measures the maps and writes docs/evaluation.md, its curves and figures: `make evaluate`.

python tools/evaluate.py               within 20 minutes on 2 cores
python tools/evaluate.py --full        everything, hours; what is finished is kept in
                                       .evaluate/ and not measured again
python tools/evaluate.py --full --limit 1 --docs /tmp/page     every section on one image
python tools/evaluate.py --sections photos sanity     these only, the others as they were
python tools/evaluate.py --full --methods naflow lrp  likewise, of each section
python tools/evaluate.py --page        only the page, from docs/evaluation/*.json
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

import evaluate_page
import evaluate_sections as sections
import torch

from naflow_fx.evaluation.methods import NAMES
from naflow_fx.evaluation.result import Evaluation

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".evaluate"
SECTIONS = {
    "photos": sections.on_photos,
    "pictures": sections.on_pictures,
    "last-layer": sections.at_the_end,
    "robustness": sections.robust,
    "sanity": sections.sane,
}


def main() -> None:
    """Measures the sections, then writes the page."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("--full", action="store_true", help="everything, resumable")
    parser.add_argument("--page", action="store_true", help="only write the page again")
    parser.add_argument("--sections", nargs="+", choices=tuple(SECTIONS), default=tuple(SECTIONS))
    parser.add_argument("--methods", nargs="+", choices=NAMES, metavar="NAME")
    parser.add_argument("--cache", type=Path, help="keep finished parts in this folder")
    parser.add_argument("--limit", type=int, help="images of each section, at most")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1,
                        help="methods at a time, each on one core")  # fmt: skip
    given = parser.parse_args()
    start()
    if not given.page:
        cache = given.cache or (CACHE if given.full else None)
        methods = given.methods and tuple(given.methods)
        plan = sections.Plan(given.full, cache, given.limit, methods)
        context = get_context("spawn")
        with ProcessPoolExecutor(given.processes, context, start) as pool:
            run = partial(spread, pool)
            measure(plan, given.sections, given.docs / "evaluation", run, given.processes)
    print(f"written: {evaluate_page.write(given.docs)}")


def spread(pool: Executor, function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
    """`map` over the pool; as bytes, for tensors would go through shared memory, which is small."""
    return list(pool.map(unpacked, [pickle.dumps((function, task)) for task in tasks]))


def unpacked(call: bytes) -> Any:
    """The result of a function and its argument."""
    function, task = pickle.loads(call)
    return function(task)


def start() -> None:
    """Of every process: one thread; a worker ends with the one that started it."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if parent_process() is not None:
        Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    """Waits for the parent, however it ends, and leaves."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def measure(
    plan: sections.Plan, names: list[str], folder: Path, run: sections.Run, processes: int
) -> None:
    """Measures sections; each one's figures are written when it is done."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        started, path = time.perf_counter(), folder / f"{name}.json"
        old = others(path, plan)
        found = SECTIONS[name](plan, run)
        if not found:
            continue
        seconds = round(time.perf_counter() - started)
        facts = {"full": plan.full, "limit": plan.limit, "kept": plan.cache is not None,
                 "seconds": seconds, "processes": processes, "cores": os.cpu_count(),
                 "methods": plan.methods}  # fmt: skip
        data = found.to_json() if isinstance(found, Evaluation) else {"checks": found}
        data = beside(old, data) if old else data
        path.write_text(json.dumps(data | {"facts": facts}, separators=(",", ":")) + "\n")
        print(f"{name}: {facts['seconds']} s", flush=True)


def others(path: Path, plan: sections.Plan) -> dict[str, Any] | None:
    """A section's figures as they are, where only some methods are measured anew."""
    if plan.methods is None or not path.exists():
        return None
    old: dict[str, Any] = json.loads(path.read_text())
    if (old["facts"]["full"], old["facts"]["limit"]) != (plan.full, plan.limit):
        raise SystemExit(f"{path}: measured with another --full or --limit; leave out --methods")
    return old


def beside(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """A section's figures, the new ones in place of old ones; what is no method any more goes."""
    if "checks" in old:
        return {"checks": {check: in_order(of_method | new["checks"].get(check, {}))
                           for check, of_method in old["checks"].items()}}  # fmt: skip
    both = Evaluation.from_json(old).merged(Evaluation.from_json(new)).to_json()
    return both | {"scores": in_order(both["scores"])}


def in_order(of_method: dict[str, Any]) -> dict[str, Any]:
    """By `NAMES`."""
    return {name: of_method[name] for name in NAMES if name in of_method}


if __name__ == "__main__":
    main()
