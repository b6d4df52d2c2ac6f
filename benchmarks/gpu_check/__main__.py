"""Whether all of it is right and fast on a CUDA machine: `python -m benchmarks.gpu_check`.

Needs torch, numpy, networkx, pillow and a copy of the tree; no network, nothing installed.  Takes
eight minutes at most.  Writes OUT.json and OUT.md after every check; the exit status is 1 if one
failed.  `--device cpu --quick` tries the checks themselves.
"""

from __future__ import annotations

import argparse
import datetime
import fnmatch
import os
import sys
import tempfile
import warnings
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_check.checks import checks, times
from benchmarks.gpu_check.lab import Lab, is_trained
from benchmarks.gpu_check.programs import programs
from benchmarks.gpu_check.run import MINUTES, run_checks, write_files
from benchmarks.subjects import TRAINED, machine


def main() -> None:
    """Runs the checks."""
    given = arguments()
    warnings.simplefilter("ignore")
    # Inductor's caches of earlier runs would hide how long it takes
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp(prefix="naflow-gpu-")
    if given.quick:  # threads that wait for each other cost most where tensors are small
        torch.set_num_threads(1)
    lab = Lab(given.device, given.quick)
    wanted = [
        check
        for part in (checks, times, programs)
        for check in part(lab)
        if any(fnmatch.fnmatch(check.name, glob) for glob in given.only)
    ]
    write = partial(write_files, given.out, facts(given.device))
    rows = run_checks(wanted, given.device, given.minutes, write)
    sys.exit(any(row.result == "failed" for row in rows))


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="a small network on small photos")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for all checks")
    parser.add_argument("--only", nargs="+", default=["*"], help="globs of names of checks")
    parser.add_argument("--out", type=Path, default=Path("gpu-check"), help="OUT.json and OUT.md")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device here; --device cpu tries the checks themselves")
    return given


def facts(device: str) -> dict[str, Any]:
    """The machine, the versions, and whose weights the networks have."""
    found = machine(device)
    found["day"] = datetime.date.today().isoformat()
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found["compute capability"] = f"{properties.major}.{properties.minor}"
        found["memory of the accelerator"] = f"{properties.total_memory / 2**30:.0f} GiB"
        found["CUDA"], found["cuDNN"] = torch.version.cuda, torch.backends.cudnn.version()
        try:
            found["triton"] = version("triton")
        except PackageNotFoundError:
            found["triton"] = None
    found["weights of resnet18 and resnet50"] = "drawn from their names"
    found[f"weights of {TRAINED}"] = "ImageNet" if is_trained() else "drawn from their names"
    return found


if __name__ == "__main__":
    main()
