from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from PIL import Image

import naflow_fx as nf
from naflow_fx.errors import EvaluationError
from naflow_fx.evaluation.data import from_boxes, seen
from naflow_fx.evaluation.photos import CHECK, CHOOSE, find, photos
from naflow_fx.models.preprocess import Preprocessing

SMALL = Preprocessing(resize=8, crop=8, interpolation="nearest")


def test_boxes_go_the_way_of_the_photo() -> None:
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[10:30, 15:45] = 255
    mask = torch.from_numpy(pixels[..., 0] > 0)
    for preprocessing in (
        Preprocessing(20, 20),
        Preprocessing(24, 20),
        Preprocessing((20, 20), 20),
    ):
        for view in ("centre", "flip", "whole"):
            image, evidence = seen(Image.fromarray(pixels), mask, preprocessing, view)
            white = image[0] > image[0].mean()
            assert (white != evidence).float().mean() < 0.06, (preprocessing, view)


def test_views_share_a_group_and_a_flip_mirrors_the_box() -> None:
    items = [(f"{i}", Image.new("RGB", (12, 12), (i, 0, 0)), i, [(0.0, 0.0, 0.25, 1.0)])
             for i in range(2)]  # fmt: skip
    found = from_boxes(items, SMALL, iter(("centre", "flip")))
    assert (found.groups.tolist(), found.target.tolist()) == ([0, 0, 1, 1], [0, 0, 1, 1])
    assert torch.equal(found.evidence[0].flip(-1), found.evidence[1])  # type: ignore[index]
    assert found.share.tolist() == [0.25] * 4
    with pytest.raises(EvaluationError, match="wanted at least one photo, and one view"):
        from_boxes([], SMALL)
    with pytest.raises(EvaluationError, match="wanted at least one photo, and one view"):
        from_boxes(items, SMALL, ())
    assert found[[2]].names == ("1",) and found[1:3].target.tolist() == [0, 1]


def test_every_photo_is_recognised_and_its_boxes_tell_something() -> None:
    network = nf.models.build("efficientnet_lite0", pretrained=True)
    for split, table in (("choose", CHOOSE), ("check", CHECK)):
        if not any(map(find, table)):
            pytest.skip(f"the packages of {split} are not installed")
        found = photos(split)  # type: ignore[arg-type]
        with torch.no_grad():
            output = network(found.images)
        rank = (output > output.gather(1, found.target[:, None])).sum(1)
        assert rank.max() < 5
        assert found.share.min() > 0.03 and found.share.max() <= 0.9


def test_no_package_no_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EvaluationError, match="wanted one of 'choose', 'check'"):
        photos("all")  # type: ignore[arg-type]
    with pytest.raises(EvaluationError, match="wanted one of 'centre', 'flip', 'whole'"):
        seen(Image.new("RGB", (9, 9)), torch.ones(9, 9) > 0, SMALL, "left")  # type: ignore[arg-type]
    empty: list[str] = []
    monkeypatch.setattr(sys, "path", empty)
    monkeypatch.delitem(sys.modules, "foolbox", raising=False)
    with pytest.raises(EvaluationError, match=r"pip install 'naflow-fx\[evaluate\]'"):
        photos("check")
