"""Boxes of one-stage detectors: which anchor a box comes from, and the network that scored it.

A detector's forward can't be traced (it loops over images, and its number of boxes is data).  What
is explained is the class logit of the box's anchor, by a network of backbone and head.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from naflow_fx.detection import torchvision_models, ultralytics_models
from naflow_fx.detection.boxes import Box, Detection
from naflow_fx.errors import InputError, TargetError
from naflow_fx.flow.data import About

if TYPE_CHECKING:
    from naflow_fx.flow import AttentionFlow

__all__ = ["Box", "Boxes", "Detection", "detect", "detector_of"]
WORKS = "SSD, SSDlite, RetinaNet and FCOS of torchvision, and ultralytics' YOLO from v8 on"
Detector = Callable[[Tensor, int], Detection]  # image [3, H, W], which box


def detector_of(model: Any) -> Detector | None:
    """How boxes of a network are found; None where it isn't a detector that is known.

    Raises:
        TargetError: a two-stage detector.
    """
    if isinstance(model, torchvision_models.TWO_STAGE):
        raise TargetError(
            f"detection: {type(model).__name__} is a two-stage detector; its boxes "
            "are cut out of the features at places that are data, and no one program "
            f"does that.  What works: {WORKS}; or nf.compile(model.backbone.body, "
            "...) with a target= of its features"
        )
    if isinstance(model, torchvision_models.ONE_STAGE):
        return partial(torchvision_models.find, model)
    network = ultralytics_models.network_of(model)
    return None if network is None else partial(ultralytics_models.find, network)


def detect(model: Any, photo: Tensor, box: int) -> Detection:
    """What `targets.detection` documents."""
    detector = detector_of(model)
    if detector is None:
        raise TargetError(f"detection: {type(model).__name__} is not known; what works: {WORKS}")
    image = photo[0] if photo.ndim == 4 and len(photo) == 1 else photo
    if image.ndim != 3:
        raise TargetError(f"detection: got a photo {list(photo.shape)}; wanted [3, H, W]")
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.no_grad():
            return detector(image, box)
    finally:
        for module, mode in modes.items():
            module.training = mode


class Boxes:
    """Explains the boxes of a detector, a photo at a time: what a `Subject` of one calls.

    Attributes:
        layers: names of the computed call sites, in forward order.
    """

    def __init__(
        self, model: nn.Module, example: Tensor, options: dict[str, Any], target: Any = None
    ) -> None:
        """For photos like `example` [1, 3, H, W]; options: of `naflow_fx.compile`.

        target: the `Box` whose program is made first; None: the most confident one.
        """
        self.model, self.example, self.options, self.target = model, example, options, target

    @cached_property
    def _explainer(self) -> Any:
        found = detect(self.model, self.example, _box(self.target).index)
        return found.compiled(**self.options)

    @property
    def layers(self) -> list[str]:
        """Names of the computed call sites, in forward order."""
        return list(self._explainer.layers)

    def __call__(self, images: Tensor, target: Any = None) -> AttentionFlow:
        """The flow of one photo [1, 3, H, W]; it knows the box, and what the network saw.

        target: a `Box`; None: the most confident one.

        Raises:
            InputError: several photos.  TargetError: no such box, or another kind of target.
        """
        if len(images) != 1:
            raise InputError(
                f"images: got {len(images)} photos; boxes are explained photo by photo"
            )
        chosen = _box(target)
        found = detect(self.model, images, chosen.index)
        flow: AttentionFlow = self._explainer(found.image, target=found.target)
        flow.about = _about(found, chosen)
        return flow

    def inspect(self) -> Any:
        """What `Explainer.inspect` gives."""
        return self._explainer.inspect()


def _box(target: Any) -> Box:
    """The box that is asked for, the first for None; TargetError for another kind of target."""
    if not (target is None or isinstance(target, Box)):
        raise TargetError(f"target: got {target!r} of a detector; wanted box:0, box:1, ..., or "
                          "none for the most confident box")  # fmt: skip
    return target or Box(0)


def _about(found: Detection, target: Box) -> About:
    """The photo with the box drawn on it, and what records say of it."""
    pixels = found.picture.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).cpu().numpy()
    picture = Image.fromarray(pixels)
    height, width = found.area
    left, top, right, bottom = found.box
    corners = (left * width, top * height, right * width, bottom * height)
    ImageDraw.Draw(picture).rectangle(corners, outline="lime", width=max(2, width // 150))
    facts = {"index": target.index, "count": found.count, "label": found.label,
             "confidence": found.confidence, "box": list(found.box),
             "where": str(found)}  # fmt: skip
    return About(photos=(picture,), info={"detection": facts})
