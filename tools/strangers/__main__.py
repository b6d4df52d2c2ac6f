"""The table of other packages' networks: docs/strangers.md, from docs/strangers.json.

Run as `python -m tools.strangers`: it adds the networks that are not in the table yet; with
`--only 'timm/*'` it does these again, with `--again` all.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import warnings
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from . import judge, page
from .networks import Network, networks

DOCS = Path(__file__).parents[2] / "docs"


def main() -> None:
    """Judges networks, each in a process of its own; the table is written after each."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.strangers", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--only", metavar="GLOB", help="networks by name, MODULE/CALL, once more")
    parser.add_argument("--again", action="store_true", help="also those in the table")
    parser.add_argument("--limit", type=float, default=300, help="seconds a network may take")
    parser.add_argument("--out", type=Path, default=DOCS, help="the folder (docs)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    table = page.read(given.out)
    for network in networks(given.only or "*"):
        if given.only or given.again or network.name not in table:
            table[network.name] = _row(network, given.limit)
            page.write(given.out, table)
            print(network.name, table[network.name], flush=True)
    page.write(given.out, table)


def _row(network: Network, limit: float) -> dict[str, Any]:
    """`judge` in a forked process, so that a crash or an endless trace ends that alone."""
    forked = multiprocessing.get_context("fork")
    with suppress(Exception):
        importlib.import_module(network.module)  # once for all of its networks
    ours, theirs = forked.Pipe(duplex=False)
    process = forked.Process(target=_judged, args=(network, theirs))
    process.start()
    theirs.close()
    try:
        found: dict[str, Any] = (
            ours.recv() if ours.poll(limit)
            else {"verdict": "raw", "words": f"no result after {limit:g} s"}
        )  # fmt: skip
    except EOFError:
        process.join()
        found = {"verdict": "raw", "words": f"the process ended with {process.exitcode}"}
    process.kill()
    process.join()
    return found


def _judged(network: Network, answer: Connection) -> None:
    null = os.open(os.devnull, os.O_WRONLY)  # what packages print is not the table's
    os.dup2(null, 1)
    os.dup2(null, 2)
    warnings.simplefilter("ignore")
    answer.send(judge.judge(network))


if __name__ == "__main__":
    main()
