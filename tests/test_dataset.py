"""Batch runs: rows, views of them, arguments, progress; readable without this package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from dataset_tiny import PHOTOS, SMALL, make, photos, picture, run, spec, unlike, whole

import naflow_fx as nf
from naflow_fx.dataset.progress import Progress
from naflow_fx.errors import DatasetError
from naflow_fx.models.preprocess import open_photo

__all__ = ["photos", "whole"]  # fixtures


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
    from naflow_fx.flow.measures import entropy

    even, point, none = torch.ones(9), torch.eye(9)[0], torch.zeros(9)
    found = entropy(torch.stack([even, point, none]))
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
        ({"batch_size": 0}, r"explain_dataset\(batch_size=0\): wanted an integer >= 1"),
        ({"part_size": 8.0}, r"explain_dataset\(part_size=8.0\): wanted an integer >= 1"),
        ({"target": "label"}, "has no labels"),
        ({"target": True}, "wanted None, a class or 'label'"),
        ({"engine": "spark"}, "wanted one of 'local', 'ray', 'torchrun'"),
        ({"explainer": 3}, "wanted an ExplainerSpec"),
        ({"explainer": torch.nn.ReLU()}, r"explain_dataset\(ReLU, ...\): wanted an ExplainerSpec"),
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
    shown = Progress(True, 1000, 100)
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


def test_a_single_picture_is_enough(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    picture().save(tmp_path / "photos/one.jpg")
    assert run(tmp_path / "photos", tmp_path / "out").photos == 1
