"""PairFlow.save and the sheet of rows."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from naflow_fx.errors import FlowError
from naflow_fx.flow import AttentionFlow
from naflow_fx.pairs import PairFlow
from naflow_fx.view.sheet import rows_grid

PHOTO = Image.new("RGB", (40, 40), (10, 200, 30))


def flow(count: int, layers: int) -> AttentionFlow:
    names = [f"layer{i}" for i in range(layers)]
    return AttentionFlow(
        maps=OrderedDict((name, torch.rand(count, 7, 7)) for name in names),
        output=torch.rand(count, 5),
        score=torch.ones(count),
        target=None,
        residual={names[0]: torch.full((count,), 0.5)},
        norm_ratio={},
        input_size=(40, 40),
        options={"method": "naflow"},
    )


def pairs(count: int = 1, shots: int = 1, layers: int = 3) -> PairFlow:
    shares = torch.tensor([[0.1, -0.7, 0.4]]).repeat(count, 1)
    sides = flow(count, layers), flow(count * shots, layers)
    return PairFlow(*sides, torch.linspace(0.5, 0.9, count), shares)


def test_one_pair(tmp_path: Path) -> None:
    seen: list[str] = []
    places = pairs().save(
        tmp_path / "out", PHOTO, PHOTO, title="two", info={"model": "m"}, on_picture=seen.append
    )
    assert places == [tmp_path / "out"] and seen == ["layer0", "layer1", "layer2"]
    record = json.loads((places[0] / "flow.json").read_text())
    assert record["model"] == "m" and record["similarity"] == 0.5
    assert [c["channel"] for c in record["contribution"]] == [1, 2, 0]
    assert record["layers"][0]["residual"] == [0.5, 0.5]
    assert record["layers"][1]["residual"] == [None, None]
    assert all((places[0] / name).is_file() for name in record["files"])
    assert "top5" not in record


def test_several_pairs_with_shots(tmp_path: Path) -> None:
    made = pairs(count=2, shots=3)
    made.contribution = None
    photos = [Image.new("RGB", (40, 20 + i)) for i in range(6)]
    places = made.save(tmp_path, [PHOTO, PHOTO], photos)
    assert [p.name for p in places] == ["000", "001"]
    record = json.loads((places[1] / "flow.json").read_text())
    assert record["images"] == 4 and record["contribution"] is None
    again = pairs(count=2, shots=3, layers=1).save(tmp_path, PHOTO, PHOTO, names=list("qabc"))
    assert [p.name for p in (again[0] / "maps").iterdir()] == ["001_layer0.png"]


def test_one_pair_of_several() -> None:
    made = pairs(count=3, shots=2)
    number: Any = np.int64(1)
    for one in (made[1], made[-2], made[1:2], made[number]):
        assert len(one) == 1 and one.shots == 2 and torch.equal(one.support.score, torch.ones(2))
        assert torch.equal(one.support.maps["layer0"], made.support.maps["layer0"][2:4])
    for outside in (3, -4):
        with pytest.raises(IndexError, match=f"No pair {outside} in a flow of 3"):
            made[outside]


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "out"
    with pytest.raises(FlowError, match="query images: Got 2 images for 1"):
        pairs().save(place, [PHOTO, PHOTO], PHOTO)
    with pytest.raises(FlowError, match="support images: Got 1 images for 3"):
        pairs(shots=3).save(place, [PHOTO], [PHOTO])
    with pytest.raises(FlowError, match="names: got 3; wanted 2"):
        pairs().save(place, PHOTO, PHOTO, names=["a", "b", "c"])
    assert not place.exists() and not list(tmp_path.iterdir())


def test_rows_have_their_pictures_in_order() -> None:
    def plain(value: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        return np.full((40, 40, 3), value, np.uint8)

    overlays = [[plain(10 * row + column) for column in range(4)] for row in range(2)]
    sheet = rows_grid(["a", "b"], [plain(200)] * 2, list("wxyz"), overlays, cell=100, columns=2)
    pixels = np.asarray(sheet)[:, :, 0]
    order = [pixels[pixels == v].size for v in (200, 0, 1, 2, 3, 10, 11, 12, 13)]
    assert order[0] > 4 * 9000 and all(size >= 9000 for size in order[1:])
    found = {v: np.argwhere(pixels == v).mean(0) for v in (1, 2, 11, 13)}
    assert found[1][0] < found[11][0] < found[2][0] and found[1][1] == found[13][1]


@pytest.mark.parametrize(("sites", "rows"), [(1, 2), (10, 2), (11, 2), (146, 2), (57, 6)])
def test_sheets_are_neither_strips_nor_full_of_holes(sites: int, rows: int) -> None:
    picture = np.zeros((40, 40, 3), np.uint8)
    names, titles = ["row"] * rows, ["site"] * sites
    sheet = rows_grid(names, [picture] * rows, titles, [[picture] * sites] * rows, cell=64)
    assert sites <= 10 or 0.7 < sheet.width / sheet.height < 3
