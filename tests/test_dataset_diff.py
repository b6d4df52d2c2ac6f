"""Two batch runs compared: paired by photo, parted by layer."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_tiny import SMALL, draw_photos, make, run, spec

import naflow_fx as nf
from naflow_fx.cli import main
from naflow_fx.errors import DatasetError
from naflow_fx.models.preprocess import open_photo

COUNT = 6


def make_other(device: torch.device) -> nf.Explainer:
    """The same network, seen by another method: fewer call sites agree."""
    example = torch.zeros(1, 3, 32, 32, device=device)
    model = make(device)._job.model
    with torch.no_grad():
        model.head.weight.neg_()
    return nf.compile(model, example, method="hirescam", layers=["first", "second"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Photos, a run of them, and another's of some of them under other names."""
    place = tmp_path_factory.mktemp("diff")
    photos = draw_photos(place / "photos", COUNT)
    some = place / "some"
    some.mkdir()
    for i, photo in enumerate(sorted(photos.iterdir(), reverse=True)[: COUNT - 1]):
        shutil.copy(photo, some / f"renamed-{i}.png")
    run(photos, place / "a")
    run(some, place / "b", explainer=spec(make=make_other))
    return photos, place / "a", place / "b"


def test_a_run_agrees_with_itself(runs: tuple[Path, Path, Path]) -> None:
    found = nf.diff(runs[1], nf.open_results(runs[1]))
    assert len(found.ids) == COUNT and found.differ == 0
    values = found.table.values
    known = values["agreement"][~values["agreement"].isnan()]
    torch.testing.assert_close(known, torch.ones_like(known))
    difference = values["B - A"]
    assert bool((difference[~difference.isnan()] == 0).all())
    assert "mean" not in values and found.table.layers == tuple(
        name for name, shape in nf.open_results(runs[1]).shapes.items() if np.prod(shape) > 1
    )


def test_two_runs_are_paired_by_photo(runs: tuple[Path, Path, Path]) -> None:
    photos, one, two = runs
    found = nf.diff(one, two)
    assert found.ids == [path.name for path in sorted(photos.iterdir())][1:]  # as the first names
    assert [name.split(" | ")[1] for name in found.table.layers] == ["first", "second"]
    x = torch.stack([SMALL(open_photo(photos / name)) for name in found.ids])
    flows = make(torch.device("cpu"))(x), make_other(torch.device("cpu"))(x)
    wanted = nf.agreement(*flows)
    assert wanted.layers == found.table.layers
    torch.testing.assert_close(found.table.values["agreement"], wanted.values["agreement"],
                               atol=0.02, rtol=0, equal_nan=True)  # fmt: skip
    spreads = flows[1].statistics().values["spread"]
    torch.testing.assert_close(found.table.values["spread B"], spreads, atol=1e-5, rtol=0)
    differ = flows[0].output.argmax(1) != flows[1].output.argmax(1)
    assert found.differ == int(differ.sum()) > 0
    partings = found.partings(3)
    means = found.table.values["agreement"].nanmean(1)
    assert [one.id for one in partings] == [found.ids[i] for i in means.argsort()[:3]]
    assert partings[0].least == pytest.approx(
        float(found.table.values["agreement"][means.argmin()].nan_to_num(9.0).min())
    )


def test_statistics_of_a_run(runs: tuple[Path, Path, Path]) -> None:
    photos, one, _ = runs
    found = nf.open_results(one).statistics()
    files = sorted(photos.iterdir())
    x = torch.stack([SMALL(open_photo(photo)) for photo in files])
    wanted = make(torch.device("cpu"))(x).statistics()
    assert found.layers == wanted.layers and len(found) == COUNT
    torch.testing.assert_close(found.values["spread"], wanted.values["spread"], atol=1e-3, rtol=0)
    torch.testing.assert_close(found.values["scatter"], wanted.values["scatter"], atol=0.02, rtol=0)
    assert nf.open_results(one).statistics("first").layers == ("first",)
    with pytest.raises(DatasetError, match="nothing"):
        nf.open_results(one).statistics("nothing")


def test_the_command_prints_it(
    runs: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diff", str(runs[1]), str(runs[2]), "--photos", "2"]) == 0
    told = capsys.readouterr().out
    assert f"{COUNT - 1} photos in both; predictions differ on" in told
    assert "agreement" in told and "B - A" in told
    assert len(told[told.index("agree least:") :].strip().splitlines()) == 4


def test_what_cannot_be_compared(
    runs: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = draw_photos(tmp_path / "photos", COUNT + 2)
    for photo in sorted(other.iterdir())[:COUNT]:
        photo.unlink()
    run(other, tmp_path / "c")
    with pytest.raises(DatasetError, match="no photo is in both"):
        nf.diff(runs[1], tmp_path / "c")
    assert main(["diff", str(runs[1]), str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    run(runs[0], tmp_path / "measures", maps=())
    found = nf.diff(runs[1], tmp_path / "measures")
    assert found.table.values["agreement"].isnan().all() and not found.partings()
    assert bool((found.table.values["B - A"].nan_to_num(0.0) == 0).all())
