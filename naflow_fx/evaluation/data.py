"""Images with known evidence: what `nf.evaluate` measures explanations on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from naflow_fx.errors import EvaluationError, check_choice, unfit
from naflow_fx.models.preprocess import Preprocessing

Box = tuple[float, float, float, float]
View = Literal["centre", "flip", "whole"]
Explain = Callable[[Tensor, Tensor], Any]  # images, target -> maps


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """N images as the model takes them, with the pixels that show the class.

    Attributes:
        images: [N, C, H, W].
        target: int64 [N], the class whose evidence is marked; -1: the predicted class.
        evidence: bool [N, H, W], the pixels of the boxes or of the mask; None: not known, and
            localisation can't be measured.
        names: N names.
        groups: int64 [N]; views of one photo share a number, and the bootstrap draws photos, not
            views.
        name: of the whole set.
    """

    images: Tensor
    target: Tensor
    evidence: Tensor | None
    names: tuple[str, ...]
    groups: Tensor
    name: str = "images"

    def __post_init__(self) -> None:
        """EvaluationError: no tensors, no image, or parts of different lengths."""
        for name in ("images", "target", "groups"):
            if not isinstance(getattr(self, name), Tensor):
                kind = type(getattr(self, name)).__name__
                raise EvaluationError(
                    f"EvaluationSet {self.name!r}: {name} is a {kind}, not a tensor"
                )
        lengths = {name: len(part) for name, part in self._parts.items()}
        if not len(self) or set(lengths.values()) != {len(self)}:
            raise EvaluationError(f"EvaluationSet {self.name!r}: wanted the same number of images, "
                                  f"at least 1, everywhere; got {lengths}")  # fmt: skip

    def __len__(self) -> int:
        """Number N of images."""
        return len(self.images)

    def __getitem__(self, index: Any) -> EvaluationSet:
        """The images of an index, a slice, a list of indices, or of those a mask is true for."""
        chosen = np.atleast_1d(np.arange(len(self))[index]).tolist()
        cut: dict[str, Any] = {
            name: part[chosen] if isinstance(part, Tensor) else tuple(part[i] for i in chosen)
            for name, part in self._parts.items()
        }
        return replace(self, **cut)

    @property
    def _parts(self) -> dict[str, Any]:
        """What there is one of for each image."""
        names = ("images", "target", "evidence", "names", "groups")
        return {n: part for n in names if (part := getattr(self, n)) is not None}

    @property
    def share(self) -> Tensor:
        """Share of each image that is evidence, [N]: the energy inside of a map without content."""
        return self.located().flatten(1).float().mean(1)

    def located(self) -> Tensor:
        """The evidence, bool [N, H, W]; EvaluationError if there is none."""
        if self.evidence is None:
            raise EvaluationError(f"EvaluationSet {self.name!r} has no boxes or masks; give it "
                                  "evidence=, or leave out the metrics that need it: energy, "
                                  "pointing and the like")  # fmt: skip
        return self.evidence


def box_mask(boxes: Sequence[Box], height: int, width: int) -> Tensor:
    """Pixels whose centre lies in one of the boxes, bool [height, width].

    A box is (left, top, right, bottom) in fractions of the image; what reaches outside is cut.
    """
    y = (torch.arange(height) + 0.5) / height
    x = (torch.arange(width) + 0.5) / width
    mask = torch.zeros(height, width, dtype=torch.bool)
    for left, top, right, bottom in boxes:
        mask |= ((y >= top) & (y < bottom))[:, None] & ((x >= left) & (x < right))
    return mask


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
    """The same with masks, bool [height, width] of the photo, instead of boxes.

    Raises:
        EvaluationError: no photo, no view, or one that there isn't.
    """
    views = tuple(views)
    rows = [
        (title, group, target, *seen(photo, mask, preprocessing, view))
        for group, (title, photo, target, mask) in enumerate(items)
        for view in views
    ]
    if not rows:
        wanted = "at least one photo, and one view"
        raise unfit(EvaluationError, "from_masks", wanted, photos=len(items), views=views)
    names, groups, targets, images, masks = zip(*rows, strict=True)
    return EvaluationSet(torch.stack(images), torch.tensor(targets), torch.stack(masks),
                         tuple(names), torch.tensor(groups), name)  # fmt: skip


def seen(
    photo: Image.Image, mask: Tensor, preprocessing: Preprocessing, view: View = "centre"
) -> tuple[Tensor, Tensor]:
    """One view of a photo as the network sees it: image [3, H, W] and evidence, bool [H, W].

    The mask takes the photo's way, resize and crop, without interpolation.
    """
    check_choice(EvaluationError, "photos", get_args(View), views=view)
    if view == "whole":
        preprocessing = replace(preprocessing, resize=(preprocessing.crop,) * 2)
    image = preprocessing(photo)
    drawn = Image.fromarray(mask.numpy().astype(np.uint8) * 255)
    cut = replace(preprocessing, interpolation="nearest").picture(drawn)
    evidence = torch.from_numpy(np.array(cut)[..., 0] > 127)
    return (image.flip(-1), evidence.flip(-1)) if view == "flip" else (image, evidence)
