"""Data sets on your disk as evaluation sets: PASCAL VOC, COCO, ImageNet, CUB-200-2011.

Nothing is downloaded.  Networks of other classes than the data set's need `classes`: the data
set's name of a class -> the network's number; what is not in it is left out, and each class that
a photo shows becomes an image of its own.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from naflow_fx.errors import EvaluationError, check_positive
from naflow_fx.evaluation.data import Box, EvaluationSet, box_mask, from_masks
from naflow_fx.models.preprocess import Preprocessing, open_photo

LIMIT = 200  # images; all of them lie in memory
Item = tuple[str, Image.Image, int, Tensor]  # name, photo, class, evidence
Objects = list[tuple[str, Box]]  # what a photo shows: class, corners in pixels from 0


def voc(
    root: str | Path,
    preprocessing: Preprocessing,
    classes: Mapping[str, int],
    *,
    year: str = "2012",
    image_set: str = "val",
    limit: int | None = LIMIT,
) -> EvaluationSet:
    """PASCAL VOC as torchvision.datasets.VOCDetection reads it (root/VOCdevkit/VOC2012/...).

    Raises:
        EvaluationError: no such folder, or it shows none of the classes.
    """  # fmt: skip
    from torchvision.datasets import VOCDetection

    _folder(root)
    try:
        found = VOCDetection(str(root), year=year, image_set=image_set)
    except (RuntimeError, OSError) as error:
        raise _not_of(f"VOC {year}, {image_set}", root, error) from error
    shown = ((Path(photo), _objects(Path(xml)))
             for photo, xml in zip(found.images, found.annotations, strict=True))  # fmt: skip
    return _dataset(f"VOC {year} {image_set}", _by_class(shown, classes), preprocessing, limit)


def coco(
    images: str | Path,
    annotations: str | Path,
    preprocessing: Preprocessing,
    classes: Mapping[str, int],
    *,
    limit: int | None = LIMIT,
) -> EvaluationSet:
    """COCO: a folder of photos and an `instances_*.json`, the boxes of one category an image.

    Raises:
        EvaluationError: a file is missing or no COCO file, or it shows none of the classes.
    """  # fmt: skip
    _folder(images)
    try:
        given = json.loads(Path(annotations).read_text("utf-8"))
        names = {c["id"]: c["name"] for c in given["categories"]}
        boxes = defaultdict[int, Objects](list)
        for one in given["annotations"]:
            boxes[one["image_id"]].append((names[one["category_id"]], _corners(*one["bbox"])))
        files = {one["id"]: Path(images, one["file_name"]) for one in given["images"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _not_of("COCO (instances_*.json)", annotations, error) from error
    photos = ((file, boxes[key]) for key, file in files.items() if key in boxes)
    return _dataset("COCO", _by_class(photos, classes), preprocessing, limit)


def imagenet(
    root: str | Path,
    annotations: str | Path,
    preprocessing: Preprocessing,
    *,
    classes: Mapping[str, int] | None = None,
    limit: int | None = LIMIT,
) -> EvaluationSet:
    """ImageNet: folders n01440764/... of photos, and their XML boxes, anywhere in `annotations`.

    Args:
        root: the folder of class folders, as torchvision.datasets.ImageFolder reads it.
        annotations: folder of <photo>.xml files; photos without boxes are left out.
        preprocessing: of the network.
        classes: folder -> number; None: the 1000 folders in alphabetical order.
        limit: images; taken evenly from all classes.

    Raises:
        EvaluationError: no such folder, not 1000 classes, or no boxes.
    """  # fmt: skip
    folders = sorted(p for p in _folder(root).iterdir() if p.is_dir())
    if classes is None:
        if len(folders) != 1000:
            raise EvaluationError(f"{root}: {len(folders)} class folders, not 1000; give classes=, "
                                  "a mapping of folders to the network's classes")  # fmt: skip
        classes = {folder.name: i for i, folder in enumerate(folders)}
    files = {path.stem: path for path in _folder(annotations).rglob("*.xml")}
    photos = _in_turn([sorted(f.iterdir()) for f in folders if f.name in classes])
    shown = ((path, [(path.parent.name, box) for _, box in _objects(files[path.stem])])
             for path in photos if path.stem in files)  # fmt: skip
    return _dataset("ImageNet", _by_class(shown, classes), preprocessing, limit)


def cub200(
    root: str | Path,
    preprocessing: Preprocessing,
    *,
    masks: bool = False,
    limit: int | None = LIMIT,
) -> EvaluationSet:
    """CUB-200-2011's test photos, boxes or masks, for a network of its 200 birds.

    Args:
        root: the folder CUB_200_2011 with images.txt, bounding_boxes.txt and the others.
        preprocessing: of the network.
        masks: segmentations/ instead of boxes.
        limit: images; taken evenly from all classes.

    Raises:
        EvaluationError: no such folder or files.
    """  # fmt: skip
    top = _folder(root)
    try:
        names, labels, boxes, split = (
            dict(line.split(maxsplit=1) for line in (top / f"{name}.txt").read_text().splitlines())
            for name in ("images", "image_class_labels", "bounding_boxes", "train_test_split")
        )
    except (OSError, ValueError) as error:
        raise _not_of("CUB-200-2011", root, error) from error
    by_label = defaultdict[str, list[str]](list)
    for key in names:
        if int(split[key]) == 0:
            by_label[labels[key]].append(key)

    def items() -> Iterator[Item]:
        for key in _in_turn(list(by_label.values())):
            file = Path(names[key])
            photo = open_photo(top / "images" / file)
            if masks:
                drawn = open_photo(top / "segmentations" / file.with_suffix(".png"))
                mask = torch.from_numpy(np.array(drawn)[..., 0] > 127)
            else:
                mask = _mask([_corners(*map(float, boxes[key].split()))], photo)
            yield file.stem, photo, int(labels[key]) - 1, mask

    return _dataset("CUB-200-2011", items(), preprocessing, limit)


def class_numbers(path: str | Path) -> dict[str, int]:
    """The `classes` in a JSON file, ``{"dog": 207, ...}``.

    Raises:
        EvaluationError: it holds something else.  OSError: it can't be read.
    """
    try:
        found = json.loads(Path(path).read_text("utf-8"))
    except ValueError as error:
        raise EvaluationError(f"{path}: not JSON ({error})") from error
    if not isinstance(found, dict) or not all(isinstance(v, int) for v in found.values()):
        raise EvaluationError(f'{path}: wanted {{"name of a class": number, ...}}')
    return found


def _dataset(
    name: str, items: Iterable[Item], preprocessing: Preprocessing, limit: int | None
) -> EvaluationSet:
    """The first `limit` items whose evidence is inside of what the network sees."""
    if limit is not None:
        check_positive(EvaluationError, name, limit=limit)
    chosen = list(islice(items, limit))
    if not chosen:
        raise EvaluationError(f"{name}: no photo shows one of the classes")
    found = from_masks(chosen, preprocessing, name=name)
    seen = torch.nonzero(found.share > 0).flatten().tolist()
    if not seen:
        raise EvaluationError(f"{name}: no object lies inside of what the network sees")
    return found[seen]


def _by_class(shown: Iterable[tuple[Path, Objects]], classes: Mapping[str, int]) -> Iterator[Item]:
    """One item for each class that a photo shows, its evidence the boxes of that class."""
    for path, objects in shown:
        photo = open_photo(path)
        for label in dict.fromkeys(name for name, _ in objects if name in classes):
            mask = _mask([box for name, box in objects if name == label], photo)
            yield f"{path.stem} {label}", photo, classes[label], mask


def _mask(boxes: Sequence[Box], photo: Image.Image) -> Tensor:
    """The pixels of boxes, bool [height, width]."""
    w, h = photo.size
    shares = [(left / w, top / h, right / w, bottom / h) for left, top, right, bottom in boxes]
    return box_mask(shares, h, w)


def _corners(left: float, top: float, width: float, height: float) -> Box:
    return left, top, left + width, top + height


def _objects(path: Path) -> Objects:
    """What an annotation of PASCAL VOC's format names; there pixels count from 1."""
    found, sides = [], ("xmin", "ymin", "xmax", "ymax")
    try:
        for one in ElementTree.parse(path).getroot().iter("object"):
            left, top, right, bottom = (float(one.findtext(f"bndbox/{k}", "")) for k in sides)
            found.append((one.findtext("name", ""), (left - 1, top - 1, right, bottom)))
    except (ElementTree.ParseError, ValueError) as error:
        raise _not_of("PASCAL VOC or ImageNet (boxes in XML)", path, error) from error
    return found


def _in_turn(lists: list[list[Any]]) -> list[Any]:
    """The first of each list, then the second of each, ..."""
    return [item for row in zip_longest(*lists) for item in row if item is not None]


def _not_of(dataset: str, path: str | Path, error: Exception) -> EvaluationError:
    return EvaluationError(f"{path}: not what {dataset} has there ({error!r})")


def _folder(path: str | Path) -> Path:
    if not Path(path).is_dir():
        raise EvaluationError(f"{path}: no such folder; check the path")
    return Path(path)
