"""Batch runs: going on where one stopped, refusing what does not fit, sharing the work."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from dataset_tiny import (
    PHOTOS,
    deadly_source,
    draw_photos,
    in_another_process,
    photos,
    run,
    spec,
    unlike,
    whole,
)

import naflow_fx as nf
from naflow_fx import files
from naflow_fx.dataset import folder
from naflow_fx.dataset.decode import KILLED
from naflow_fx.dataset.job import differences
from naflow_fx.dataset.sources import open_source
from naflow_fx.errors import DatasetError

__all__ = ["photos", "whole"]  # fixtures


@pytest.mark.parametrize("stop", range(3))
def test_goes_on_where_it_stopped(
    photos: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """A disk that is full at a part: what was written stays, the next call makes the rest."""
    written: list[Path] = []

    def full(path: Path) -> None:
        written.append(path)
        if len(written) > 2 * stop + 4:  # manifest and explainer: two each; then each part
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files, "flush", full)
        with pytest.raises(DatasetError, match="no space left .No space left on device.; free"):
            run(photos, tmp_path / "out")
    assert not list(tmp_path.glob("out/parts/.tmp-*"))
    again = run(photos, tmp_path / "out")
    assert unlike(whole, tmp_path / "out") == []
    assert again.done == PHOTOS - 8 * stop
    assert run(photos, tmp_path / "out").found == f"found {PHOTOS} of {PHOTOS} photos done in 3 " \
        "parts; 0 to go"  # fmt: skip


def test_a_limit_of_the_system_is_a_full_disk(photos: Path, whole: Path, tmp_path: Path) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        run(photos, tmp_path / "out")

    text = in_another_process(limited)
    assert "no space left (File too large); free some and call again" in text
    run(photos, tmp_path / "out")
    assert unlike(whole, tmp_path / "out") == []


def test_damaged_and_lost_parts_are_made_again(photos: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(photos, out)
    one, two = out / "parts/part-000000.parquet", out / "parts/part-000002.parquet"
    one.write_bytes(one.read_bytes()[:1000])
    two.unlink()
    (out / "parts/.tmp-local-1").write_bytes(b"cut")
    found = run(photos, out).found
    assert found == ("found 8 of 21 photos done in 1 parts (1 unfinished files removed; 1 damaged "
                     "parts put aside); 13 to go")  # fmt: skip
    assert unlike(whole, out) == []
    assert len(pd.read_parquet(out / "parts")) == PHOTOS  # what was put aside isn't read


def test_another_job_is_refused(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "out")
    with pytest.raises(DatasetError, match="batch_size: 4 there, 8 now"):
        run(photos, tmp_path / "out", batch_size=8)
    with pytest.raises(DatasetError, match="target: None there, 3 now"):
        run(photos, tmp_path / "out", target=3)
    more = draw_photos(tmp_path / "more", PHOTOS + 1)
    with pytest.raises(DatasetError, match="photos: 21 there, 22 now; ids differ"):
        run(more, tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    with pytest.raises(DatasetError, match="not empty, and not of an earlier run .letter.txt"):
        run(photos, tmp_path / "mine")
    assert os.listdir(tmp_path / "mine") == ["letter.txt"]
    with pytest.raises(DatasetError, match="is a file"):
        run(photos, tmp_path / "mine/letter.txt")
    (tmp_path / "out/manifest.json").write_text("[]")
    with pytest.raises(DatasetError, match="not a manifest of a run"):
        run(photos, tmp_path / "out")


def test_a_run_that_never_began_leaves_the_folder_free(photos: Path, tmp_path: Path) -> None:
    """A misspelt layer shows when the explainer is made; the right one takes the folder."""
    for _ in range(2):
        with pytest.raises(nf.NaflowError, match="relu9"):
            run(photos, tmp_path / "out", maps="relu9")
    run(photos, tmp_path / "out")
    with pytest.raises(DatasetError, match="maps: "):
        run(photos, tmp_path / "out", maps="relu9")


@pytest.mark.parametrize("wrong", [{"workers": -1}, {"workers": 1.5}, {"actors": 0}])
def test_numbers_of_processes_that_there_cannot_be(
    photos: Path, tmp_path: Path, wrong: dict[str, Any]
) -> None:
    with pytest.raises(DatasetError, match=r"(workers|actors)=.*: wanted [01] or more, or None"):
        run(photos, tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()


def test_other_weights_are_refused(photos: Path, tmp_path: Path) -> None:
    """Of a model drawn at random a second call, or actor, would write rows of another one."""

    def at_random(device: torch.device) -> nf.Explainer:
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.AdaptiveAvgPool2d(1),
                                    torch.nn.Flatten())  # fmt: skip
        return nf.compile(model, torch.zeros(1, 3, 32, 32))

    run(photos, tmp_path, explainer=spec(make=at_random))
    (tmp_path / "parts/part-000001.parquet").unlink()
    with pytest.raises(DatasetError, match="another explainer .identity.weights differ"):
        run(photos, tmp_path, explainer=spec(make=at_random))


def test_two_runs_on_one_folder(photos: Path, tmp_path: Path) -> None:
    from naflow_fx.dataset.lock import locked

    with locked(tmp_path):
        with pytest.raises(DatasetError, match="another run in this process"):
            run(photos, tmp_path)
        text = in_another_process(lambda: run(photos, tmp_path))
    assert f"another run (process {os.getpid()} on " in text
    assert "wait until it is done, or choose another folder" in text
    assert run(photos, tmp_path).done == PHOTOS


def test_ranks_share_the_parts(
    photos: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = []
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        done.append(run(photos, tmp_path, engine="torchrun").done)
    assert done == [8, 13]
    assert unlike(whole, tmp_path) == []
    monkeypatch.delenv("RANK")
    with pytest.raises(DatasetError, match="start it with torchrun or srun"):
        run(photos, tmp_path, engine="torchrun")


@pytest.mark.slow
def test_torchrun_makes_the_same_rows(photos: Path, whole: Path, tmp_path: Path) -> None:
    """Two ranks as torchrun starts them; each makes its share, none waits for the other."""
    child = [str(Path(__file__).with_name("dataset_tiny.py")), str(photos), str(tmp_path / "out")]
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    here = ["--standalone", "--local-addr", "127.0.0.1"]  # looking up names can take minutes
    words = [*start, *here, *child, "engine=torchrun", "progress=1"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=env, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "rank 0: 13/13 photos" in done.stderr and "rank 1: 8/8 photos" in done.stderr
    assert unlike(whole, tmp_path / "out") == []


@pytest.mark.slow  # a DataLoader looks every five seconds whether its workers live
def test_a_photo_that_kills_its_decoder_is_listed(
    photos: Path, whole: Path, tmp_path: Path
) -> None:
    done = run(deadly_source(photos), tmp_path, workers=1)
    found = nf.open_results(tmp_path)
    assert (done.photos, done.failed, len(found)) == (PHOTOS, 1, PHOTOS - 1)
    assert [(f["id"], f["reason"]) for f in found.failed] == [("00005.png", KILLED)]
    wanted = nf.open_results(whole).pandas().drop(5).reset_index(drop=True)
    assert np.stack(found.pandas()["mean"]).tobytes() == np.stack(wanted["mean"]).tobytes()


def test_a_source_that_goes_away_ends_the_run(tmp_path: Path) -> None:
    """Rather than listing every photo as damaged."""
    photos = draw_photos(tmp_path / "photos", 3)
    source = open_source(photos)
    photos.rename(tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match="can't be reached any more"):
        run(source, tmp_path / "out")
    (tmp_path / "elsewhere").rename(photos)
    assert run(source, tmp_path / "out").failed == 0


def test_failed_photos_are_tried_again_when_asked(
    photos: Path, whole: Path, tmp_path: Path
) -> None:
    copy = draw_photos(tmp_path / "photos", PHOTOS)
    good = (copy / "00009.png").read_bytes()
    (copy / "00009.png").write_bytes(b"")
    assert run(copy, tmp_path / "out").failed == 1
    (copy / "00009.png").write_bytes(good)
    assert run(copy, tmp_path / "out").done == 0
    again = run(copy, tmp_path / "out", retry_failed=True)
    assert (again.done, again.failed) == (8, 0)
    assert unlike(whole, tmp_path / "out") == []
    assert (tmp_path / "out/failed.jsonl").read_text() == ""


def test_differences_name_what_changed() -> None:
    old = {"a": 1, "b": {"c": "x", "d": [1]}, "h": "0" * 64}
    assert differences(old, old) == []
    new = {"a": 2, "b": {"c": "x", "d": [2]}, "h": "1" * 64}
    assert differences(old, new) == ["a: 1 there, 2 now", "b.d: [1] there, [2] now", "h differ"]


def test_an_error_of_the_writer_ends_the_run(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(folder, "write_part", broken)
    with pytest.raises(PermissionError):
        run(photos, tmp_path)
