"""Batch runs: rows, their order, going on, refusing; readable without this package."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from dataset_tiny import SMALL, draw_photos, in_another_process, make, picture, run, spec, unlike

import naflow_fx as nf
from naflow_fx.dataset import parts, pipeline
from naflow_fx.dataset.job import differences
from naflow_fx.dataset.loading import KILLED
from naflow_fx.dataset.progress import Lines
from naflow_fx.dataset.progress import make as make_progress
from naflow_fx.dataset.sources import Files, open_source
from naflow_fx.errors import DatasetError
from naflow_fx.models.preprocess import open_photo

PHOTOS = 21


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_photos(tmp_path_factory.mktemp("source") / "photos", PHOTOS)


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    run(photos, out)
    return out


def test_rows_are_what_the_explainer_gives(photos: Path, whole: Path) -> None:
    found = nf.open_results(whole)
    rows = found.pandas()
    explainer = make(torch.device("cpu"))
    assert list(rows["id"]) == [f"{i:05d}.png" for i in range(PHOTOS)]
    assert found.layers == explainer.layers
    for number in (0, 7, PHOTOS - 1):
        flow = explainer(SMALL(open_photo(photos / rows["id"][number]))[None])
        assert rows["prediction"][number] == int(flow.output.argmax())
        assert rows["score"][number] == pytest.approx(float(flow.score), rel=1e-5)
        for order, (name, m) in enumerate(flow.maps.items()):
            raw = torch.from_numpy(found.maps(name, raw=True)[number])
            torch.testing.assert_close(raw, m[0], rtol=2e-3, atol=1e-6 * float(m.max()))
            assert rows["residual"][number][order] == pytest.approx(
                float(flow.residual[name]), rel=1e-4, abs=1e-6
            )
            assert rows["active"][number][order] == pytest.approx(float((m > 0).float().mean()))


def test_spread_is_one_for_even_maps_and_nothing_for_a_point() -> None:
    from naflow_fx.dataset.runner import spread

    even, point, none = torch.ones(9), torch.eye(9)[0], torch.zeros(9)
    found = spread(torch.stack([even, point, none]))
    assert found[:2].tolist() == pytest.approx([1, 0], abs=1e-6)
    assert found[2].isnan()


def test_readable_without_this_package(whole: Path) -> None:
    """As docs/batch.md tells; in a process that doesn't import naflow_fx."""
    code = f"""
import json, sys
import numpy as np, pandas as pd, pyarrow.parquet as pq
rows = pd.read_parquet({str(whole / "parts")!r})
field = pq.read_schema({str(whole / "parts" / "part-000000.parquet")!r}).field("map.first")
shape = json.loads(field.metadata[b"shape"])
maps = np.stack([np.frombuffer(m, "<f2").reshape(shape) for m in rows["map.first"]])
assert "naflow_fx" not in sys.modules and "torch" not in sys.modules
print(maps.shape, float(maps.max()), len(rows))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["(21,", "32,", "32)", "1.0", "21"]


def test_pandas_xarray_and_torch_see_the_same(whole: Path) -> None:
    found = nf.open_results(whole)
    frame, data, rows = found.pandas(), found.xarray("second"), found.torch("second")
    assert len(frame) == len(rows) == data.sizes["photo"] == len(found) == PHOTOS
    for number in (0, 9, PHOTOS - 1):
        row = rows[number]
        assert row["id"] == frame["id"][number] == data["photo"].values[number]
        assert row["prediction"] == frame["prediction"][number] == data["prediction"][number]
        np.testing.assert_array_equal(row["spread"], data["spread"][number])
        np.testing.assert_array_equal(row["maps"]["second"], data["map.second"][number])
        np.testing.assert_array_equal(row["maps"]["second"], found.maps("second")[number])
    with pytest.raises(IndexError):
        rows[PHOTOS]


@pytest.mark.parametrize("stop", range(3))
def test_goes_on_where_it_stopped(
    photos: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """A disk that is full at a part: what was written stays, the next call makes the rest."""
    written: list[int] = []

    def full(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) > 2 * stop + 4:  # manifest and explainer: two each; then each part
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(parts, "flush", full)
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


def test_a_flipped_bit_is_not_read_as_numbers(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path)
    part = tmp_path / "parts/part-000000.parquet"
    column = pq.read_metadata(part).row_group(0)
    place = next(column.column(i) for i in range(column.num_columns)
                 if column.column(i).path_in_schema == "map.first")  # fmt: skip
    data = bytearray(part.read_bytes())
    data[place.data_page_offset + place.total_compressed_size // 2] ^= 1
    part.write_bytes(data)
    with pytest.raises(OSError, match="(?i)crc|checksum"):
        nf.open_results(tmp_path).maps("first")


def test_workers_and_callers_do_not_change_a_bit(photos: Path, whole: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "workers", workers=2)
    assert unlike(whole, tmp_path / "workers") == []
    given = spec(make=None)
    explainer = make(torch.device("cpu"))
    run(photos, tmp_path / "given", explainer=nf.ExplainerSpec(make=lambda device: explainer,
                                                               preprocessing=SMALL))  # fmt: skip
    assert given.preprocessing is SMALL
    assert unlike(whole, tmp_path / "given") == []


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


class Deadly(Files):
    """A source with a photo that kills the process that reads it."""

    def read(self, position: int) -> bytes:
        if self.ids[position] == "00005.png":
            os.kill(os.getpid(), 9)
        return super().read(position)


@pytest.mark.slow  # a DataLoader looks every five seconds whether its workers live
def test_a_photo_that_kills_its_decoder_is_listed(
    photos: Path, whole: Path, tmp_path: Path
) -> None:
    files: Any = open_source(photos)
    source = Deadly(files.root, files.paths, files.ids, None)
    done = run(source, tmp_path, workers=1)
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


def test_only_some_maps_are_stored(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "one", maps="seco*")
    assert nf.open_results(tmp_path / "one").stored == ["second"]
    run(photos, tmp_path / "none", maps=())
    found = nf.open_results(tmp_path / "none")
    assert found.stored == [] and len(found.layers) > 2 and len(found.torch()[0]["maps"]) == 0
    with pytest.raises(DatasetError, match="no maps of 'first' are stored; stored: none"):
        found.maps("first")
    with pytest.raises(DatasetError, match="no layer that is computed has such a name"):
        run(photos, tmp_path / "wrong", maps="third")


def test_bad_arguments_are_told(photos: Path, tmp_path: Path) -> None:
    for options, text in (
        ({"part_size": 6}, "wanted a multiple of batch_size=4"),
        ({"batch_size": 0}, "wanted 1 or more"),
        ({"target": "label"}, "has no labels"),
        ({"target": True}, "wanted None, a class or 'label'"),
        ({"engine": "spark"}, "wanted one of local, ray, torchrun"),
        ({"explainer": 3}, "wanted an ExplainerSpec"),
        ({"explainer": make}, "give preprocessing="),
        ({"explainer": spec(make=lambda device: 3)}, "wanted an Explainer of photos"),
    ):
        with pytest.raises(DatasetError, match=text):
            run(photos, tmp_path / "out", **options)
    with pytest.raises(DatasetError, match="not a folder of results"):
        nf.open_results(tmp_path)


def test_progress_tells_rate_time_left_and_the_devices_share(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, *[110.0] * 20])
    monkeypatch.setattr("naflow_fx.dataset.progress.time.monotonic", lambda: next(clock))
    shown = make_progress(True, 1000, 100)
    assert isinstance(shown, Lines)
    shown.begin()
    shown.add(50, 1, 9.0)
    line = capsys.readouterr().err
    assert line == "naflow-fx: 150/1000 photos, 1 failed, 5/s, 3 min left, device busy 90%\n"


def test_the_end_of_a_run_in_a_pipe_says_all(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run(photos, tmp_path, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "naflow-fx: 21 photos to explain, none done yet"
    assert lines[-1].startswith("naflow-fx: 21/21 photos, ")
    assert 0 < done.device_share <= 1 and done.rate > 0
    assert json.loads((tmp_path / "manifest.json").read_text())["job"]["photos"] == PHOTOS


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

    monkeypatch.setattr(pipeline, "write_part", broken)
    with pytest.raises(PermissionError):
        run(photos, tmp_path)


def test_a_single_picture_is_enough(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    picture().save(tmp_path / "photos/one.jpg")
    assert run(tmp_path / "photos", tmp_path / "out").photos == 1
