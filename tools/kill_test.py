"""Kills a batch run at random moments and compares its rows with an uninterrupted run's.

    python tools/kill_test.py                          2,000 photos, 20 kills, the bundled model
    python tools/kill_test.py --photos 200 --kills 5   a smaller one

Each kill is SIGKILL.  Every second one comes at a moment drawn evenly from the time that a process
takes to its first part; the others wait for a new part, then for a moment drawn evenly from the
time that one kill's share of the photos takes.  Nothing in the run knows of it.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import naflow_fx as nf

SIZE = 64  # pixels of the network's input
LAYERS = ("blocks.15.*", "head_act")


@dataclass
class Outcome:
    """What happened: of each killed call its seconds and the photos done after it."""

    kills: list[tuple[float, int]] = field(default_factory=list)
    leftovers: int = 0
    differences: list[str] = field(default_factory=list)
    rows: int = 0


def main() -> None:
    """Runs it and prints the figures; exit code 1 if a row differs, lacks or is there twice."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", nargs=2, metavar=("PHOTOS", "OUT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.child:
        run(*given.child)
        return
    with tempfile.TemporaryDirectory(prefix="naflow-kill-") as place:
        photos = Path(place) / "photos"
        make_photos(photos, given.photos, given.seed)
        alone = run(str(photos), f"{place}/whole").seconds
        print(f"uninterrupted: {given.photos} photos in {alone:.0f} s", flush=True)
        command = [sys.executable, __file__, "--child", str(photos), f"{place}/killed"]
        outcome = kill(command, Path(place), given.kills, alone, given.seed)
    for number, (seconds, done) in enumerate(outcome.kills, 1):
        print(f"kill {number:2}: after {seconds:5.1f} s; {done} photos done")
    print(f"unfinished files that kills left: {outcome.leftovers}")
    print(f"rows: {outcome.rows}; differences: {'; '.join(outcome.differences) or 'none'}")
    sys.exit(bool(outcome.differences) or outcome.rows != given.photos)


def spec() -> nf.ExplainerSpec:
    """The bundled model on small photos, some of its layers."""
    prepare = nf.models.card("efficientnet_lite0").preprocessing
    small = nf.models.Preprocessing(SIZE * 9 // 8, SIZE, prepare.mean, prepare.std, prepare.scale)
    return nf.ExplainerSpec(layers=LAYERS, inverse=nf.Inverse(steps=2), preprocessing=small)


def run(photos: str, out: str) -> nf.DatasetRun:
    """One call, killed or not."""
    return nf.explain_dataset(spec(), photos, out, part_size=32, workers=1)


def make_photos(folder: Path, count: int, seed: int) -> None:
    """Small PNG files of noise that is smooth at several scales."""
    folder.mkdir()
    draw = np.random.default_rng(seed)
    for number in range(count):
        noise = [draw.integers(0, 256, (side, side, 3), dtype=np.uint8) for side in (3, 9, 27)]
        layers = [Image.fromarray(one).resize((80, 72)) for one in noise]
        picture = Image.blend(Image.blend(layers[0], layers[1], 0.5), layers[2], 0.3)
        picture.save(folder / f"{number:05d}.png")


def kill(command: Sequence[str], place: Path, kills: int, alone: float, seed: int) -> Outcome:
    """Kills calls of a command, lets the last one end, compares `killed` with `whole` in `place`.

    alone: seconds of the uninterrupted run, from its first photo on.
    """
    draw, outcome, out = random.Random(seed), Outcome(), place / "killed"
    startup = 60.0  # until one is measured
    while len(outcome.kills) < kills:
        late = len(outcome.kills) % 2 == 0
        begin = time.monotonic()
        with _call(command) as process:
            if late:
                _wait_for_a_part(out, process)
                startup = min(startup, time.monotonic() - begin)
            try:
                process.wait(draw.uniform(0, alone / kills if late else startup))
                break  # done before the kill
            except subprocess.TimeoutExpired:
                process.kill()
        outcome.leftovers += len(list(out.glob("**/.tmp-*")))
        outcome.kills.append((time.monotonic() - begin, _done(out)))
    with _call(command) as process:
        if process.wait() != 0:
            outcome.differences.append("the last call failed")
    outcome.rows, found = compare(place / "whole", out)
    outcome.differences += found
    return outcome


def _wait_for_a_part(out: Path, process: subprocess.Popen[bytes]) -> None:
    """Returns when a part is there that wasn't, or the process has ended."""
    before = len(list(out.glob("parts/part-*")))
    while len(list(out.glob("parts/part-*"))) == before and process.poll() is None:
        time.sleep(0.01)


def _call(command: Sequence[str]) -> subprocess.Popen[bytes]:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, env=env)


def _done(out: Path) -> int:
    """Photos in finished parts."""
    if not list(out.glob("parts/part-*")):
        return 0
    found = nf.open_results(out)
    return len(found) + len(found.failed)


def compare(whole: Path, killed: Path) -> tuple[int, list[str]]:
    """Rows of the second folder; what differs between the two, to the bit."""
    first, second = nf.open_results(whole), nf.open_results(killed)
    rows, wanted = second.pandas(), first.pandas()
    differences = [] if second.complete else ["not complete"]
    if rows["position"].duplicated().any():
        differences.append("rows twice")
    if len(rows) != len(wanted):
        return len(rows), [*differences, f"{len(rows)} rows, wanted {len(wanted)}"]
    for name in wanted:
        if not _equal(wanted[name].to_numpy(), rows[name].to_numpy()):
            differences.append(name)
    for layer in first.stored:
        if first.maps(layer).tobytes() != second.maps(layer).tobytes():
            differences.append(f"map.{layer}")
    return len(rows), differences


def _equal(a: Any, b: Any) -> bool:
    """Whether two columns hold the same, lists and NaN included."""
    if len(a) and isinstance(a[0], np.ndarray):
        return bool(np.stack(a).tobytes() == np.stack(b).tobytes())
    if a.dtype.kind == "f":
        return bool(a.tobytes() == b.tobytes())
    return bool((a == b).all())


if __name__ == "__main__":
    main()
