"""One box of a one-stage detector of torchvision: which anchor it comes from, and its network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torchvision.models import detection as zoo
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from naflow_fx.errors import TargetError

if TYPE_CHECKING:
    from naflow_fx.flow import AttentionFlow

ONE_STAGE = (zoo.ssd.SSD, zoo.RetinaNet, zoo.FCOS)
TWO_STAGE = zoo.generalized_rcnn.GeneralizedRCNN
WORKS = "SSD, SSDlite, RetinaNet and FCOS of torchvision"


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


class _Logit:
    """The logit of a class at an anchor."""

    def __init__(self, anchor: int, label: int) -> None:
        self.anchor, self.label = anchor, label

    def __call__(self, output: Any) -> Tensor:
        found: Tensor = output["cls_logits"][:, self.anchor, self.label]
        return found


@dataclass(frozen=True, eq=False)
class Detection:
    """One box that a detector found.

    Attributes:
        network: backbone and head; what is compiled.
        image: [1, 3, h, w], the photo as the detector's transform gives it to the network.
        target: the class logit of the box's anchor, a callable of the network's output.
        box: (left, top, right, bottom) in fractions of the photo.
        label: its class.
        confidence: the detector's own score.
    """

    network: nn.Module
    image: Tensor
    target: Any
    box: tuple[float, float, float, float]
    label: int
    confidence: float

    def explain(self, **options: Any) -> AttentionFlow:
        """The flow of the image; options: of `naflow_fx.compile`."""
        import naflow_fx

        made = naflow_fx.compile(self.network, self.image, target=self.target, **options)
        flow: AttentionFlow = made(self.image)
        return flow


def detect(model: Any, photo: Tensor, box: int) -> Detection:
    """What `targets.detection` documents."""
    _check(model)
    image = photo[0] if photo.ndim == 4 and len(photo) == 1 else photo
    if image.ndim != 3:
        raise TargetError(f"detection: got a photo {list(photo.shape)}; wanted [3, H, W]")
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad():
            return _detected(model.eval(), image, box)
    finally:
        for module, mode in modes.items():
            module.training = mode


def _check(model: Any) -> None:
    name = type(model).__name__
    if isinstance(model, TWO_STAGE):
        raise TargetError(
            f"detection: {name} is a two-stage detector; its boxes are cut out of the features at "
            f"places that are data, and no one program does that.  What works: {WORKS}; or "
            "nf.compile(model.backbone.body, ...) with a target= of its features"
        )
    if not isinstance(model, ONE_STAGE):
        raise TargetError(f"detection: {name} is not known; what works: {WORKS}")


def _detected(model: Any, image: Tensor, box: int) -> Detection:
    found = model([image])[0]
    if not -len(found["boxes"]) <= box < len(found["boxes"]):
        raise TargetError(f"detection: box {box} of {len(found['boxes'])} boxes that the detector "
                          "finds on this photo")  # fmt: skip
    place, label = found["boxes"][box], int(found["labels"][box])
    images, _ = model.transform([image])
    network = Heads(model)
    anchor = _anchor(model, network, images, _scaled(place, image, images), label,
                     float(found["scores"][box]))  # fmt: skip
    height, width = image.shape[-2:]
    left, top, right, bottom = (place / place.new_tensor([width, height] * 2)).tolist()
    return Detection(network, images.tensors, _Logit(anchor, label), (left, top, right, bottom),
                     label, float(found["scores"][box]))  # fmt: skip


def _scaled(place: Tensor, image: Tensor, images: ImageList) -> Tensor:
    """A box of the photo, [4], in pixels of the transformed image."""
    (new_height, new_width), (height, width) = images.image_sizes[0], image.shape[-2:]
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
