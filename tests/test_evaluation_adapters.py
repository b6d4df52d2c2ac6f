from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from naflow_fx.errors import EvaluationError
from naflow_fx.evaluation.adapters import coco, cub200, imagenet, voc
from naflow_fx.evaluation.data import EvaluationSet
from naflow_fx.models.preprocess import Preprocessing

PREPROCESSING = Preprocessing(resize=32, crop=32, mean=(0.0,) * 3, std=(1.0,) * 3)
BOX = (8, 4, 24, 20)  # left, top, right, bottom in pixels of a photo of 32 x 32, from 0


def photo(path: Path, box: tuple[int, int, int, int] = BOX) -> None:
    """Black, with a white object."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    Image.fromarray(pixels).save(path, quality=100, subsampling=0)


def annotation(path: Path, *objects: tuple[str, tuple[int, int, int, int]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{b[0] + 1}</xmin><ymin>{b[1] + 1}</ymin>"
        f"<xmax>{b[2]}</xmax><ymax>{b[3]}</ymax></bndbox></object>"
        for name, b in objects
    )
    path.write_text(f"<annotation>{parts}</annotation>")


def marked(found: EvaluationSet) -> bool:
    """The evidence is what is white."""
    assert found.evidence is not None
    return torch.equal(found.images[:, 0] > 0.5, found.evidence)


def test_voc(tmp_path: Path) -> None:
    top = tmp_path / "VOCdevkit" / "VOC2012"
    photo(top / "JPEGImages" / "one.jpg")
    annotation(top / "Annotations" / "one.xml", ("dog", BOX), ("sofa", (0, 0, 3, 3)))
    split = top / "ImageSets" / "Main" / "val.txt"
    split.parent.mkdir(parents=True)
    split.write_text("one\n")
    found = voc(tmp_path, PREPROCESSING, {"dog": 207, "cat": 281})
    assert (found.names, found.target.tolist(), marked(found)) == (("one dog",), [207], True)
    assert len(voc(tmp_path, PREPROCESSING, {"dog": 207, "sofa": 831})) == 2
    with pytest.raises(EvaluationError, match="no photo shows one of the classes"):
        voc(tmp_path, PREPROCESSING, {"cat": 281})
    with pytest.raises(EvaluationError, match="not what VOC 2007, val has there"):
        voc(tmp_path, PREPROCESSING, {"dog": 1}, year="2007")


def test_coco(tmp_path: Path) -> None:
    photo(tmp_path / "val" / "7.png")
    left, top, right, bottom = BOX
    given = {
        "images": [{"id": 7, "file_name": "7.png"}, {"id": 8, "file_name": "absent.png"}],
        "categories": [{"id": 3, "name": "dog"}],
        "annotations": [
            {"image_id": 7, "category_id": 3, "bbox": [left, top, right - left, bottom - top]}
        ],
    }
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(given))
    found = coco(tmp_path / "val", file, PREPROCESSING, {"dog": 5})
    assert (found.target.tolist(), marked(found)) == ([5], True)
    file.write_text("[]")
    with pytest.raises(EvaluationError, match="not what COCO"):
        coco(tmp_path / "val", file, PREPROCESSING, {"dog": 5})


def test_imagenet(tmp_path: Path) -> None:
    for wnid, name in (("n01", "a"), ("n02", "b"), ("n02", "c"), ("n03", "d")):
        photo(tmp_path / "val" / wnid / f"{name}.png")
    for name in "abd":
        annotation(tmp_path / "xml" / "val" / f"{name}.xml", ("n0", BOX))
    given = (tmp_path / "val", tmp_path / "xml", PREPROCESSING)
    found = imagenet(*given, classes={"n01": 0, "n02": 1})
    assert (found.target.tolist(), marked(found)) == ([0, 1], True)
    assert len(imagenet(*given, classes={"n01": 0, "n02": 1, "n03": 2}, limit=2)) == 2
    with pytest.raises(EvaluationError, match="3 class folders, not 1000; give classes="):
        imagenet(*given)


def test_cub200(tmp_path: Path) -> None:
    files = ("images", "image_class_labels", "bounding_boxes", "train_test_split")
    lines: dict[str, list[str]] = {name: [] for name in files}
    left, top, right, bottom = BOX
    for key, (label, train) in enumerate([(1, 0), (1, 1), (2, 0)], start=1):
        file = f"00{label}.Bird/b{key}.png"
        photo(tmp_path / "images" / file)
        photo(tmp_path / "segmentations" / file)
        lines["images"].append(f"{key} {file}")
        lines["image_class_labels"].append(f"{key} {label}")
        lines["train_test_split"].append(f"{key} {train}")
        lines["bounding_boxes"].append(f"{key} {left}.0 {top}.0 {right - left}.0 {bottom - top}.0")
    for name, text in lines.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(text) + "\n")
    for masks in (False, True):
        found = cub200(tmp_path, PREPROCESSING, masks=masks)
        assert (found.names, found.target.tolist()) == (("b1", "b3"), [0, 1])
        assert marked(found)
    with pytest.raises(EvaluationError, match="not what CUB-200-2011 has"):
        cub200(tmp_path / "images", PREPROCESSING)
    with pytest.raises(EvaluationError, match="no such folder"):
        cub200(tmp_path / "none", PREPROCESSING)
