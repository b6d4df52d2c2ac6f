"""The packaged photos as a model sees them, with their boxes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from naflow_fx.errors import EvaluationError, one_of, unfit
from naflow_fx.evaluation.data import Box, EvaluationSet, box_mask
from naflow_fx.evaluation.photo_table import PHOTOS, Entry, Split
from naflow_fx.models.preprocess import Preprocessing, open_photo

View = Literal["centre", "flip", "whole"]


def photos(
    split: Split = "check",
    preprocessing: Preprocessing | None = None,
    views: Iterable[View] = ("centre",),
) -> EvaluationSet:
    """Photos that installed packages ship, with boxes round the object of their class.

    Args:
        split: "choose", photos to choose maps by, or "check", to report on.
        preprocessing: of the network; None: the bundled model's.
        views: "centre", the network's own centre crop; "flip", its mirror image; "whole", the
            photo stretched, without a crop.  Views of one photo share a group: the bootstrap
            draws photos.

    Raises:
        EvaluationError: none of the packages is installed, or there is no such split or view.
    """  # fmt: skip
    if split not in PHOTOS:
        raise unfit(EvaluationError, "photos", one_of(PHOTOS), split=split)
    entries = [(entry, path) for entry in PHOTOS[split] if (path := find(entry)) is not None]
    if not entries:
        packages = ", ".join(sorted({entry.package for entry in PHOTOS[split]}))
        raise EvaluationError(f"photos({split!r}): none of the packages {packages} is installed; "
                              "pip install 'naflow-fx[evaluate]'")  # fmt: skip
    given = [(e.name, open_photo(path), e.target, e.boxes) for e, path in entries]
    return from_boxes(given, preprocessing or _bundled(), views, name=f"photos, {split}")


def find(entry: Entry) -> Path | None:
    """The photo's file, or None where its package is not installed.  Nothing is imported."""
    spec = find_spec(entry.package)
    folders = (spec.submodule_search_locations if spec else None) or []
    return next((p for f in folders if (p := Path(f, entry.path)).is_file()), None)


def from_boxes(
    items: Sequence[tuple[str, Image.Image, int, Sequence[Box]]],
    preprocessing: Preprocessing,
    views: Iterable[View] = ("centre",),
    name: str = "photos",
) -> EvaluationSet:
    """An evaluation set of photos: each its name, picture, class and boxes in fractions of it."""
    marked = [(title, photo, target, box_mask(boxes, photo.height, photo.width))
              for title, photo, target, boxes in items]  # fmt: skip
    return from_masks(marked, preprocessing, views, name)


def from_masks(
    items: Sequence[tuple[str, Image.Image, int, Tensor]],
    preprocessing: Preprocessing,
    views: Iterable[View] = ("centre",),
    name: str = "photos",
) -> EvaluationSet:
    """The same with masks, bool [height, width] of the photo, instead of boxes."""
    rows = [
        (title, group, target, *seen(photo, mask, preprocessing, view))
        for group, (title, photo, target, mask) in enumerate(items)
        for view in views
    ]
    names, groups, targets, images, masks = zip(*rows, strict=True)
    return EvaluationSet(torch.stack(images), torch.tensor(targets), torch.stack(masks),
                         tuple(names), torch.tensor(groups), name)  # fmt: skip


def seen(
    photo: Image.Image, mask: Tensor, preprocessing: Preprocessing, view: View = "centre"
) -> tuple[Tensor, Tensor]:
    """One view of a photo as the network sees it: image [3, H, W] and evidence, bool [H, W].

    The mask takes the photo's way, resize and crop, without interpolation.
    """
    if view not in get_args(View):
        raise unfit(EvaluationError, "photos", one_of(get_args(View)), views=view)
    if view == "whole":
        preprocessing = replace(preprocessing, resize=(preprocessing.crop,) * 2)
    image = preprocessing(photo)
    drawn = Image.fromarray(mask.numpy().astype(np.uint8) * 255)
    cut = replace(preprocessing, interpolation="nearest").picture(drawn)
    evidence = torch.from_numpy(np.array(cut)[..., 0] > 127)
    return (image.flip(-1), evidence.flip(-1)) if view == "flip" else (image, evidence)


def _bundled() -> Preprocessing:
    from naflow_fx.models import card

    return card("efficientnet_lite0").preprocessing
