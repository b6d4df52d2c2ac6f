"""Boxes of torchvision's one-stage detectors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import detection as zoo
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from naflow_fx.detection.boxes import Detection, Logit, chosen

ONE_STAGE = (zoo.ssd.SSD, zoo.RetinaNet, zoo.FCOS)
TWO_STAGE = zoo.generalized_rcnn.GeneralizedRCNN


class Heads(nn.Module):
    """A detector's backbone and head: images [N, 3, H, W] -> its raw outputs, [N, anchors, ...]."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.backbone, self.head = model.backbone, model.head

    def features(self, images: Tensor) -> list[Tensor]:
        """What the head is given."""
        found = self.backbone(images)
        return [found] if isinstance(found, Tensor) else list(found.values())

    def forward(self, images: Tensor) -> Any:
        """What the head gives: "cls_logits" [N, anchors, classes], and boxes."""
        return self.head(self.features(images))


def find(model: Any, image: Tensor, box: int) -> Detection:
    """The box, and the anchor that it comes from."""
    found = model([image])[0]
    at = chosen(found["boxes"], box)
    place, label, score = found["boxes"][at], int(found["labels"][at]), found["scores"][at]
    height, width = image.shape[-2:]
    shares = place / place.new_tensor([width, height] * 2)
    images, _ = model.transform([image])
    network, area, seen = Heads(model), images.image_sizes[0], images.tensors[0]
    anchor = _anchor(model, network, images, shares, label, score)
    mean, std = (seen.new_tensor(value)[:, None, None]
                 for value in (model.transform.image_mean, model.transform.image_std))  # fmt: skip
    return Detection(network, images.tensors, Logit(anchor, label), tuple(shares.tolist()), label,
                     float(score), len(found["boxes"]), seen * std + mean, area)  # fmt: skip


def _anchor(
    model: Any, network: Heads, images: ImageList, shares: Tensor, label: int, confidence: Tensor
) -> int:
    """The anchor whose box and score they are: of those of this score, the one that fits best."""
    features = network.features(images.tensors)
    output = network.head(features)
    anchors = model.anchor_generator(images, features)[0]
    decode = getattr(model.box_coder, "decode_single", model.box_coder.decode)
    boxes = decode(output["bbox_regression"][0], anchors)
    height, width = images.image_sizes[0]
    size = boxes.new_tensor([width, height] * 2)
    overlap = box_iou(boxes.clamp_min(0).minimum(size), (shares * size)[None])[:, 0]
    away = (_confidences(model, output)[0, :, label] - confidence).abs()
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
