"""Boxes of one-stage detectors: which anchor a box comes from, and the network that scored it.

A detector's forward can't be traced (it loops over images, and its number of boxes is data).  What
is explained is the class logit of the box's anchor, by a network of backbone and head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from naflow_fx.detection import torchvision_models, ultralytics_models
from naflow_fx.detection.boxes import Box, Boxes, Detection, Detector
from naflow_fx.errors import TargetError

__all__ = ["Box", "Boxes", "Detection", "detect", "detector_of"]
WORKS = "SSD, SSDlite, RetinaNet and FCOS of torchvision, and ultralytics' YOLO from v8 on"


def detector_of(model: Any) -> Detector | None:
    """How boxes of a network are found; None where it isn't a detector that is known.

    Raises:
        TargetError: a two-stage detector.
    """
    if isinstance(model, torchvision_models.TWO_STAGE):
        raise TargetError(
            f"detection: {type(model).__name__} is a two-stage detector; its boxes are cut out of "
            "the features at places that are data, and no one program does that.  What works: "
            f"{WORKS}; or nf.compile(model.backbone.body, ...) with a target= of its features"
        )
    return torchvision_models.of(model) or ultralytics_models.of(model)


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
            return detector.find(image, box)
    finally:
        for module, mode in modes.items():
            module.training = mode
