"""The command line as a process: errors in one line, exit codes, help, pipes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_cli import COFFEE, ROOT, FakeExplainer, made, names_in, out

import naflow_fx
from naflow_fx.cli import main
from naflow_fx.errors import GraphError, UnsupportedOperator

__all__ = ["made", "out"]  # fixtures


def error_of(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line that a failing command line prints, nothing else being printed."""
    try:
        code = main(argv)
    except SystemExit as stop:
        code = int(stop.code or 0)
    printed = capsys.readouterr()
    assert code == 2 and printed.out == ""
    assert re.fullmatch(r"naflow-fx: error: [^\n]+\n", printed.err)
    return printed.err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["explain", "none.png"], "none.png: no such file"),
        (["explain", "cut.png"], "cut.png: damaged or cut short"),
        (["explain", str(COFFEE), "text.png"], "text.png: not a picture"),
        (["explain", "."], "naflow-fx"),
        (["explain", "COFFEE", "--model", "resnet49"], "no model 'resnet49'; near: resnet"),
        (["explain", "COFFEE", "--target", "expresso"], "near: espresso"),
        (["explain", "COFFEE", "--target", "1000"], "0 to 999"),
        (["explain", "COFFEE", "--weights", "none.pt"], "none.pt' is neither a checkpoint file"),
        (["explain", "COFFEE", "--weights", "other.pt"], "checkpoint of another network"),
        (["explain", "COFFEE", "--weights", "text.png"], "not a complete checkpoint"),
        (["explain", "COFFEE", "--device", "nowhere"], "device='nowhere': not to be had"),
        (["explain", "COFFEE", "--out", "text.png"], "text.png is a file, not a folder"),
        (["explain", "COFFEE", "--out", "text.png/below"], "text.png is a file, not a folder"),
        (["explain", "COFFEE", "--out", ""], "--out: is empty; give a name"),
        (["report", "COFFEE", "--out", " "], "--out: is empty; give a name"),
        (["export", "--out", ""], "--out: is empty; give a name"),
        (["inspect", "--out", ""], "--out: is empty; give a name"),
        (["batch", ".", "--out", ""], "--out: is empty; give a name"),
        (["decompose", "COFFEE", "--out", "d.html"], "d.html: looks like a file"),
        (["explain", "COFFEE", "--out", "maps.PNG"], "wanted the name of a folder"),
        (["batch", ".", "--out", "r", "--workers", "-1"], "must be 0 or more, got -1"),
        (["explain", "COFFEE", "--damping", "-1"], "damping=-1.0"),
        (["explain", "COFFEE", "--steps", "0"], "steps=0"),
        (["explain", "COFFEE", "--steps", "many"], "invalid int value: 'many' (see `naflow-fx"),
        (["explain", "COFFEE", "--method", "guess"], "invalid choice: 'guess'"),
        (["explain", "COFFEE", "--alpha", "2"], "must be from 0 to 1, got 2"),
        (["explain", "COFFEE", "--alpha", "x"], "--alpha"),
        (["explain"], "required: PHOTO"),
        (["inspect", "--model", "resnet49"], "no model 'resnet49'"),
        (["paint"], "invalid choice: 'paint'"),
        ([], "required"),
    ],
)
def test_errors_are_one_line_and_write_nothing(
    argv: list[str],
    words: str,
    out: Path,
    made: list[FakeExplainer],
    capsys: pytest.CaptureFixture[str],
) -> None:
    here = out.parent
    (here / "cut.png").write_bytes(COFFEE.read_bytes()[:20000])
    (here / "text.png").write_text("no picture")
    torch.save({"weight": torch.zeros(2)}, here / "other.pt")
    before = names_in(here)
    argv = [str(COFFEE) if word == "COFFEE" else word for word in argv]
    assert words in error_of(capsys, *argv)
    assert names_in(here) == before and not (here / "naflow_out").exists()


@pytest.mark.parametrize(
    "error",
    [
        GraphError("no layer fits 'layer9.*'.\n  Take one of a, b"),
        UnsupportedOperator("2 nodes have no rule:\n  a   glu\n  b   logsumexp\n"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"),
        MemoryError(),
        OSError(28, "No space left on device", "out/coffee"),
    ],
)
def test_failures_of_the_work_are_one_line_too(
    error: Exception,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*args: Any, **options: Any) -> Any:
        raise error

    monkeypatch.setattr(naflow_fx, "compile", fail, raising=False)
    line = error_of(capsys, "explain", str(COFFEE), "--out", str(out))
    wanted = {
        GraphError: "no layer fits 'layer9.*'. Take one of a, b\n",
        UnsupportedOperator: "2 nodes have no rule: a glu; b logsumexp",
        torch.OutOfMemoryError: "out of memory; choose fewer --layers",
        MemoryError: "out of memory",
        OSError: "out/coffee: No space left on device; check",
    }
    assert wanted[type(error)] in line and not out.exists()


def test_a_download_that_fails(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(out.parent / "cache"))
    monkeypatch.setattr("torch.hub.urlopen", lambda *a, **k: (_ for _ in ()).throw(OSError("cut")))
    line = error_of(capsys, "explain", str(COFFEE), "--model", "squeezenet1_1")
    assert "squeezenet1_1: could not load IMAGENET1K_V1" in line


def test_bugs_keep_their_traceback(monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
    def fail(*args: Any, **options: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(naflow_fx, "compile", fail, raising=False)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["explain", str(COFFEE), "--out", str(out)])


def test_ctrl_c_while_saving(
    made: list[FakeExplainer],
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(*args: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("naflow_fx.view.save.grid", stop)
    assert main(["explain", str(COFFEE), "--out", str(out)]) == 130
    assert re.fullmatch(r"naflow-fx: interrupted[^\n]+\n", capsys.readouterr().err)
    assert not out.exists() and not list(out.parent.iterdir())


def run(*argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "naflow_fx", *argv]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False, **options
    )


def test_as_a_process_errors_have_exit_code_2(tmp_path: Path) -> None:
    done = run("explain", "none.png", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "naflow-fx: error: none.png: no such file; check the path\n"
    assert not list(tmp_path.iterdir())


def test_an_unwritable_folder(
    made: list[FakeExplainer],
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def deny(*args: Any, dir: Path, **options: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr("tempfile.TemporaryDirectory", deny)
    line = error_of(capsys, "explain", str(COFFEE), "--out", str(out))
    assert f"{out.parent}: Permission denied; check the path" in line and not made


@pytest.mark.parametrize("command", [[], ["explain"], ["inspect"], ["models"]])
def test_help_is_readable_and_imports_nothing_heavy(command: list[str]) -> None:
    code = (
        "import sys\nfrom naflow_fx.cli import main\n"
        f"try: main({[*command, '--help']!r})\n"
        "finally: print('heavy:', [m for m in ('torch', 'torchvision') if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith("usage: naflow-fx") and "heavy: []" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_a_reader_that_goes_away_is_no_error() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "naflow_fx", "models"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode != 0
