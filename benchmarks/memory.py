"""Peak memory of one run, in a process of its own: `python -m benchmarks.memory MODEL BATCH WHAT`.

Everything above the loaded model and images counts: what the explainer holds, and the peak while
it runs.  On a CPU that is the resident set's high-water mark, on CUDA the allocator's.  glibc's
heap keeps holes between blocks: the same run is measured with every block of 64 KiB or more mapped
for itself too (`MALLOC_MMAP_THRESHOLD_=65536`), which is what the run needs.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.subjects import DEFAULT, LAYERCAM, ROOT, SETTINGS, model, photos, training_step

RUNS = 5  # on a CPU: as much as a fifth lies between two runs of the same
WHAT = ("training step", "forward", DEFAULT.name, LAYERCAM.name)


def measured(
    name: str, batch: int, what: str, device: str, threads: int, apart: bool = False
) -> int:
    """Bytes, measured in a fresh process; `apart`: without glibc's holes."""
    arguments = [name, str(batch), what, device, str(threads)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", *arguments],
        cwd=ROOT,
        env={**os.environ, **({"MALLOC_MMAP_THRESHOLD_": "65536"} if apart else {})},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1][:200])
    return int(json.loads(done.stdout.splitlines()[-1]))


def peak(name: str, batch: int, what: str, device: str) -> int:
    """Bytes above the loaded model, measured in this process."""
    net, x = model(name, device), photos(batch, 224, device)
    with torch.no_grad():
        net(x[:1])  # the libraries' own workspaces
    start = _restart(device)
    run = _prepare(name, what, device, batch)
    if device == "cpu":
        _trim()
        _restart_mark()
    run()
    return _mark(device) - start


def _prepare(name: str, what: str, device: str, batch: int) -> Callable[[], object]:
    net, x = model(name, device), photos(batch, 224, device)
    if what == "training step":
        return lambda: training_step(net, x)
    if what == "forward":
        return lambda: torch.no_grad()(net)(x)
    setting = next(s for s in (DEFAULT, *SETTINGS) if s.name == what)
    explainer = setting.compile(net, x)
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return lambda: explainer(x)


def _restart(device: str) -> int:
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return int(torch.cuda.memory_allocated())
    _trim()
    _restart_mark()
    return _status("VmRSS")


def _mark(device: str) -> int:
    return int(torch.cuda.max_memory_allocated()) if device == "cuda" else _status("VmHWM")


def _trim() -> None:
    """Hands freed memory back, so that it does not hide what is taken later."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _restart_mark() -> None:
    """Sets the high-water mark to the present (Linux); compiling must not count as running."""
    Path("/proc/self/clear_refs").write_text("5")


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def main() -> None:
    """Prints the bytes."""
    name, batch, what, device, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    print(json.dumps(peak(name, int(batch), what, device)))


if __name__ == "__main__":
    main()
