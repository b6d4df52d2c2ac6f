"""One box of torchvision's one-stage detectors; two-stage ones are refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision.models import detection as zoo
from torchvision.ops import box_iou

import naflow_fx as nf
from naflow_fx.cli import main
from naflow_fx.detection import Box, ultralytics_models
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


@pytest.mark.slow
def test_boxes_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(
        "import torch\nfrom torchvision.models import detection as zoo\n"
        "def ssd():\n    torch.manual_seed(0)\n"
        "    return zoo.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None,\n"
        "                                             num_classes=5, score_thresh=0.0)\n"
    )
    photo = str(Path(__file__).parent.parent / "examples" / "chelsea.png")
    given = ["--model", "nets.py:ssd", "--size", "96", "--mean", "0", "--std", "1",
             "--method", "hirescam"]  # fmt: skip
    assert main(["explain", photo, *given, "--target", "box:0", "box:2", "--out", "out"]) == 0
    printed = capsys.readouterr().out
    subject = nf.subject("nets.py:ssd", size=96, mean=0.0, std=1.0)
    for index in (0, 2):
        record = json.loads(
            (tmp_path / "out" / "chelsea" / f"box_{index}" / "flow.json").read_text()
        )
        found = nf.targets.detection(subject.build(), subject.inputs([photo]), box=index)
        assert record["detection"]["box"] == pytest.approx(list(found.box), abs=1e-4)
        assert record["detection"]["label"] == found.label
        assert f"box {index} of {found.count}" in printed and str(found) in printed
    assert main(["report", photo, *given, "--target", "box:1", "--out", "box.html"]) == 0
    flow = subject.explain(photo, method="hirescam", layers="backbone.*")
    assert len(flow.about.photos) == 1 and flow.about.info["detection"]["index"] == 0
    capsys.readouterr()
    for wrong, words in (
        (["explain", photo, *given, "--target", "box:9999"], "box 9999 of"),
        (["explain", photo, *given, "--target", "3"], "wanted box:0"),
        (["batch", str(Path(photo).parent), *given, "--out", "rows"], "explained photo by photo"),
        (["export", *given, "--format", "pt2", "--out", "x.pt2"], "explained photo by photo"),
    ):
        assert main(wrong) == 2
        assert words in capsys.readouterr().err


def test_a_box_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, compile = [], nf.compile

    def counted(*args: Any, **options: Any) -> Any:
        compiled.append(options["target"])
        return compile(*args, **options)

    monkeypatch.setattr(nf, "compile", counted)
    model = detector("ssdlite320_mobilenet_v3_large")
    subject = nf.Subject(model, preprocessing=nf.models.Preprocessing(96, 96))
    image = torch.rand(1, 3, 96, 96)
    with pytest.raises(TargetError, match="explained photo by photo"):
        subject.program(image)
    assert not compiled
    explainer: Any = subject.explainer(image, targets=[Box(2)], method="hirescam")
    explainer(image, target=Box(2))
    assert len(compiled) == 1 and not explainer._explainer._of_target.cache_info().misses


def test_what_is_padded_is_no_part_of_the_photo() -> None:
    found = nf.targets.detection(detector("fcos_resnet50_fpn"), torch.rand(3, 60, 90), box=0)
    assert found.area == (64, 96) and found.picture.shape == (3, 64, 96)
    wide = nf.targets.detection(detector("fcos_resnet50_fpn"), torch.rand(3, 50, 100), box=0)
    assert wide.area == (48, 96) and wide.picture.shape == (3, 64, 96)


@pytest.mark.parametrize(
    "name",
    [
        "yolov8n.yaml",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("yolo11n.yaml", "yolo26n.yaml")),
    ],
)
def test_ultralytics(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "open", Image.open)  # ultralytics replaces it, for good
    monkeypatch.setenv("YOLO_AUTOINSTALL", "false")
    tasks = pytest.importorskip("ultralytics.nn.tasks")
    monkeypatch.setattr(ultralytics_models, "CONFIDENCE", 0.0)
    torch.manual_seed(0)
    model, photo = tasks.DetectionModel(name, nc=4, verbose=False), torch.rand(3, 64, 96)
    model.end2end = name == "yolo26n.yaml"  # as its trained weights are used
    for branches in (model.model[-1].cv3, getattr(model.model[-1], "one2one_cv3", [])):
        for branch in branches:
            torch.nn.init.normal_(branch[-1].weight)  # scores that differ
    found = nf.targets.detection(model, photo, box=1)
    assert model.training
    flow = found.explain(layers="model.*", method="hirescam")
    with torch.no_grad():
        raw = model.eval()(photo[None])[0][0]
    place = torch.tensor(found.box) * torch.tensor([96, 64, 96, 64])
    limit = torch.tensor([96.0, 64, 96, 64])
    if model.end2end:
        assert raw.shape[1] == 6
        box, score, label = raw[1, :4], raw[1, 4], raw[1, 5]
    else:
        nms = pytest.importorskip("ultralytics.utils.nms")
        box, score, label = nms.non_max_suppression(raw[None], 0.0, 0.7)[0][1].split([4, 1, 1])
    torch.testing.assert_close(place, box.clamp_min(0).minimum(limit))
    assert found.label == int(label) and found.confidence == pytest.approx(float(score))
    assert float(flow.score[0].sigmoid()) == pytest.approx(float(score), rel=1e-4)
    with pytest.raises(TargetError, match=r"multiples of 32, such as --size 640"):
        nf.targets.detection(model, torch.rand(3, 60, 64))
