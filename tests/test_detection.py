"""One box of torchvision's one-stage detectors; two-stage ones are refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torchvision.models import detection as zoo
from torchvision.ops import box_iou

import naflow_fx as nf
from naflow_fx.errors import TargetError

SMALL = {"min_size": 96, "max_size": 96, "score_thresh": 0.0}
DETECTORS = {
    "ssdlite320_mobilenet_v3_large": {},
    "retinanet_resnet50_fpn": SMALL,
    "fcos_resnet50_fpn": SMALL,
}


def detector(name: str) -> Any:
    torch.manual_seed(0)
    model = getattr(zoo, name)(
        weights=None, weights_backbone=None, num_classes=5, **DETECTORS.get(name, {})
    )
    return model.train()  # left as it is


@pytest.mark.parametrize(
    "name",
    [
        "ssdlite320_mobilenet_v3_large",
        pytest.param("retinanet_resnet50_fpn", marks=pytest.mark.slow),
        pytest.param("fcos_resnet50_fpn", marks=pytest.mark.slow),
    ],
)
def test_one_box(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, photo = detector(name), torch.rand(3, 80, 100)
    found = nf.targets.detection(model, photo, box=2)
    assert all(module.training for module in model.modules())
    flow = found.explain(layers="backbone.*", method="hirescam")
    model.eval()
    with torch.no_grad():
        boxes = model([photo])[0]
        images, _ = model.transform([photo])
        output = found.network(images.tensors)
    logits = output["cls_logits"][0]
    assert found.label == boxes["labels"][2]
    place = torch.tensor(found.box) * torch.tensor([100, 80, 100, 80])
    torch.testing.assert_close(place, boxes["boxes"][2])
    assert found.confidence == pytest.approx(float(boxes["scores"][2]))
    assert float(flow.score[0]) == pytest.approx(float(logits[found.target.anchor, found.label]))
    # with all other anchors silenced, the detector finds this very box
    others = torch.arange(len(logits)) != found.target.anchor
    logits[others] = -30.0
    if name.startswith("ssd"):
        logits[others, 0] = 30.0  # its background
    monkeypatch.setattr(model.head, "forward", lambda _: {**output, "cls_logits": logits[None]})
    with torch.no_grad():
        left = model([photo])[0]
    best = left["boxes"][left["labels"] == found.label][:1]
    assert float(box_iou(best, boxes["boxes"][2][None])) == pytest.approx(1, abs=1e-3)
    assert all(bool(m.isfinite().all()) for m in flow.maps.values())


def test_what_detection_refuses() -> None:
    photo = torch.rand(3, 64, 64)
    two = zoo.fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None)
    with pytest.raises(TargetError, match="FasterRCNN is a two-stage detector.*RetinaNet"):
        nf.targets.detection(two, photo)
    with pytest.raises(TargetError, match="Conv2d is not known; what works: SSD"):
        nf.targets.detection(torch.nn.Conv2d(3, 3, 3), photo)
    one = detector("ssdlite320_mobilenet_v3_large")
    with pytest.raises(TargetError, match="box 1000 of "):
        nf.targets.detection(one, photo, box=1000)
    with pytest.raises(TargetError, match=r"photo \[2, 3, 64, 64\]"):
        nf.targets.detection(one, torch.rand(2, 3, 64, 64))
