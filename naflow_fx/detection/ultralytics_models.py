"""Boxes of ultralytics' YOLO networks, from v8 on; the package itself is not imported.

The class scores of an anchor are a branch of the head (``cv3``, of networks without non-maximum
suppression ``one2one_cv3``) for each level of the features; box regression is another.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms, box_convert

from naflow_fx.detection.boxes import Detection, Logit, chosen
from naflow_fx.errors import TargetError

CONFIDENCE, OVERLAP = 0.25, 0.7  # ultralytics' own: boxes below, or over a better one, are dropped


def network_of(model: Any) -> Any:
    """The network of a YOLO, or of one that it is; None of another model."""
    if not type(model).__module__.startswith("ultralytics."):
        return None
    network = model if hasattr(model, "save") and hasattr(model, "stride") else model.model
    layers = getattr(network, "model", None)
    known = isinstance(layers, nn.Sequential) and hasattr(layers[-1], "cv3")
    return network if known else None


class Heads(nn.Module):
    """Layers and class branch: images [N, 3, H, W] -> logits [N, anchors, classes]."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.model, self.kept = network.model, set(network.save)

    def forward(self, images: Tensor) -> Tensor:
        """The layers in their order, each reading those that its `f` names; then the branch."""
        x: Any = images
        results: list[Any] = []
        for layer in self.model[:-1]:
            x = layer(self._read(layer.f, x, results))
            results.append(x if layer.i in self.kept else None)
        head = self.model[-1]
        branches = head.one2one_cv3 if _without_suppression(head) else head.cv3
        features = self._read(head.f, x, results)
        logits = [branch(f).flatten(2) for branch, f in zip(branches, features, strict=True)]
        return torch.cat(logits, 2).transpose(1, 2)

    @staticmethod
    def _read(sources: int | list[int], last: Any, results: list[Any]) -> Any:
        if isinstance(sources, int):
            return last if sources == -1 else results[sources]
        return [last if source == -1 else results[source] for source in sources]


def _without_suppression(head: Any) -> bool:
    return bool(getattr(head, "end2end", False))


def find(model: Any, image: Tensor, box: int) -> Detection:
    """The box of a photo in [0, 1], and the anchor that it comes from.

    Raises:
        TargetError: sides that are no multiples of the largest stride.
    """
    height, width = image.shape[-2:]
    stride = int(max(model.stride))
    if height % stride or width % stride:
        raise TargetError(f"detection: got a photo {list(image.shape)}; wanted sides that are "
                          f"multiples of {stride}, such as --size {20 * stride}")  # fmt: skip
    network = Heads(model)
    scores = network(image[None])[0].sigmoid()
    given = model(image[None])
    raw = given[0] if isinstance(given, (tuple, list)) else given
    choose = _ranked if _without_suppression(model.model[-1]) else _suppressed
    boxes, anchors, labels = choose(raw[0], scores)
    at = chosen(boxes, box)
    anchor, label = int(anchors[at]), int(labels[at])
    shares = (boxes[at] / boxes.new_tensor([width, height] * 2)).clamp(0, 1)
    return Detection(network, image[None], Logit(anchor, label), tuple(shares.tolist()), label,
                     float(scores[anchor, label]), len(boxes), image, (height, width))  # fmt: skip


def _suppressed(raw: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes [K, 4] in pixels, anchors [K] and classes [K], best first, of [4 + classes + .., A]."""
    best, labels = scores.max(1)
    sure = (best > CONFIDENCE).nonzero()[:, 0]
    boxes = box_convert(raw[:4].T[sure], "cxcywh", "xyxy")
    kept = batched_nms(boxes, best[sure], labels[sure], OVERLAP)
    return boxes[kept], sure[kept], labels[sure][kept]


def _ranked(raw: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same of [K, 6 + ..]: corners, confidence and class of the network's own choice."""
    sure = raw[raw[:, 4] > CONFIDENCE]
    labels = sure[:, 5].long()
    away = (scores[:, labels] - sure[:, 4]).abs()  # [A, K]
    return sure[:, :4], away.argmin(0), labels
