"""Boxes of torchvision's one-stage detectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import detection as zoo
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from naflow_fx.detection.boxes import Detection, Logit, chosen

ONE_STAGE = (zoo.ssd.SSD, zoo.RetinaNet, zoo.FCOS)
TWO_STAGE = zoo.generalized_rcnn.GeneralizedRCNN


def of(model: Any) -> Torchvision | None:
    """How its boxes are found, of a one-stage detector of torchvision."""
    return Torchvision(model) if isinstance(model, ONE_STAGE) else None


class Heads(nn.Module):
    """A detector's backbone and head: images [N, 3, H, W] -> its raw outputs, [N, anchors, ...]."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.backbone, self.head = model.backbone, model.head

    def forward(self, images: Tensor) -> Any:
        """What the head gives: "cls_logits" [N, anchors, classes], and boxes."""
        features = self.backbone(images)
        single = isinstance(features, Tensor)
        return self.head([features] if single else list(features.values()))


@dataclass(frozen=True)
class Torchvision:
    """A `Detector`."""

    model: Any

    def find(self, image: Tensor, box: int) -> Detection:
        """The box, and the anchor that it comes from."""
        found = self.model([image])[0]
        box = chosen(found["boxes"], box)
        place, label = found["boxes"][box], int(found["labels"][box])
        images, _ = self.model.transform([image])
        area, network, score = images.image_sizes[0], Heads(self.model), float(found["scores"][box])
        anchor = _anchor(self.model, network, images, _scaled(place, image, area), label, score)
        height, width = image.shape[-2:]
        left, top, right, bottom = (place / place.new_tensor([width, height] * 2)).tolist()
        return Detection(network, images.tensors, Logit(anchor, label), (left, top, right, bottom),
                         label, score, len(found["boxes"]), self._seen(images), area)  # fmt: skip

    def _seen(self, images: ImageList) -> Tensor:
        """What the network takes, without its normalisation."""
        transform, image = self.model.transform, images.tensors[0]
        mean, std = (image.new_tensor(v)[:, None, None]
                     for v in (transform.image_mean, transform.image_std))  # fmt: skip
        seen: Tensor = image * std + mean
        return seen


def _scaled(place: Tensor, image: Tensor, area: tuple[int, int]) -> Tensor:
    """A box of the photo, [4], in pixels of the transformed image."""
    (new_height, new_width), (height, width) = area, image.shape[-2:]
    return place * place.new_tensor([new_width / width, new_height / height] * 2)


def _anchor(
    model: Any, network: Heads, images: ImageList, place: Tensor, label: int, confidence: float
) -> int:
    """The anchor whose box and score they are: of those of this score, the one that fits best."""
    output = network(images.tensors)
    features = network.backbone(images.tensors)
    maps = [features] if isinstance(features, Tensor) else list(features.values())
    anchors = model.anchor_generator(images, maps)[0]
    scores = _confidences(model, output)[0, :, label]
    decode = getattr(model.box_coder, "decode_single", model.box_coder.decode)
    boxes = decode(output["bbox_regression"][0], anchors)
    height, width = images.image_sizes[0]
    limit = boxes.new_tensor([width, height, width, height])
    overlap = box_iou(boxes.clamp_min(0).minimum(limit), place[None])[:, 0]
    away = (scores - confidence).abs()
    near = torch.where(away <= away.min() + 1e-6, overlap, -1.0)
    return int(near.argmax())


def _confidences(model: Any, output: dict[str, Tensor]) -> Tensor:
    """The detector's scores of all anchors, [N, anchors, classes]."""
    logits = output["cls_logits"]
    if isinstance(model, zoo.ssd.SSD):
        return logits.softmax(-1)
    if "bbox_ctrness" in output:
        return (logits.sigmoid() * output["bbox_ctrness"].sigmoid()).sqrt()
    return logits.sigmoid()
