"""kill -9 at random moments and at the worst ones: no row twice, none lost, none different."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from dataset_tiny import KILLS, draw_photos, in_another_process, run, unlike

import naflow_fx as nf
from naflow_fx import files
from naflow_fx.dataset import FAILED

PHOTOS, COUNT = 60, 4


@pytest.mark.slow
def test_kills_at_random_moments(tmp_path: Path) -> None:
    """tools/kill_test.py with 2,000 photos and 20 kills is the large form."""
    photos = draw_photos(tmp_path / "photos", PHOTOS)
    run(photos, tmp_path / "whole")
    child = [sys.executable, str(Path(__file__).with_name("dataset_tiny.py")), str(photos)]
    command = [*child, str(tmp_path / "killed"), "workers=1"]
    outcome = KILLS.kill(command, tmp_path, COUNT, alone=0.4, seed=1)
    assert outcome.differences == []
    assert outcome.rows == PHOTOS
    assert 1 <= len(outcome.kills) <= COUNT  # a slow machine may be done before the last


@pytest.mark.parametrize("when", ["before", "behind"])
@pytest.mark.parametrize("step", ["flush", "os.replace", "os.link"])
def test_kills_at_the_worst_moments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, when: str
) -> None:
    """Killed before and behind the n-th call of what makes a file safe, until one gets through."""
    photos = draw_photos(tmp_path / "photos", 20)
    run(photos, tmp_path / "whole")
    owner, name = (os, step[3:]) if step.startswith("os.") else (files, step)
    inner, out, call = getattr(owner, name), tmp_path / "killed", 0

    def deadly(*words: object) -> None:
        nonlocal call
        call -= 1
        if call == 0 and when == "before":
            os.kill(os.getpid(), 9)
        inner(*words)
        if call == 0:
            os.kill(os.getpid(), 9)

    calls = 0
    monkeypatch.setattr(owner, name, deadly)
    while not (out / FAILED).exists() or not nf.open_results(out).complete:
        call = calls % 6 + 1  # a call gets a little further each time, then starts with new files
        calls += 1
        in_another_process(lambda: run(photos, out))
        assert calls < 30
    assert calls > 1
    call = 0
    run(photos, out)
    assert unlike(tmp_path / "whole", out) == []
    assert not list(out.glob("**/.tmp-*"))
