"""Heads of every kind: multi-label, binary, regression, probabilities, several, segmentation."""

from __future__ import annotations

import collections
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import segmentation as zoo

import naflow_fx as nf
from naflow_fx.errors import NaflowError, OptionError, TargetError

STEPS = nf.Inverse(steps=2)


def images(count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, 12, 12, generator=generator, dtype=torch.float64)


def network(*head: nn.Module) -> nn.Sequential:
    """Two convolutions, a mean over space, then the head; 8 numbers come into it."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU())
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(body, pooled, *head).double().eval()


class Flat(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.squeeze(1)


def checked(model: nn.Module, wanted: Any, call: Any = None, **options: Any) -> nf.AttentionFlow:
    """The flow; its score is what `wanted` makes of the output, its importance the gradient."""
    x = images().requires_grad_()
    explainer = nf.compile(model, images(1), keep="importance", inverse=STEPS, **options)
    flow: nf.AttentionFlow = explainer(images(), call)
    score = wanted(model(x))
    torch.testing.assert_close(flow.score, score.detach())
    (gradient,) = torch.autograd.grad(score.sum(), x)
    torch.testing.assert_close(next(iter(flow.importance.values())), gradient)
    assert all(bool(m.isfinite().all()) for m in flow.maps.values())
    return flow


HEADS = {
    "multi-label": nn.Linear(8, 4),
    "sigmoid": nn.Sequential(nn.Linear(8, 4), nn.Sigmoid()),
    "softmax": nn.Sequential(nn.Linear(8, 4), nn.Softmax(1)),
    "log-softmax": nn.Sequential(nn.Linear(8, 4), nn.LogSoftmax(1)),
}


@pytest.mark.parametrize("kind", HEADS)
def test_a_row_of_numbers(kind: str) -> None:
    model = network(HEADS[kind])
    checked(model, lambda y: y[:, 2], 2)
    checked(model, lambda y: y.max(1).values)


@pytest.mark.parametrize("flat", [True, False])
def test_one_number(flat: bool) -> None:
    model = network(nn.Linear(8, 1), *([Flat()] if flat else []))
    for call in (None, 0):
        flow = checked(model, lambda y: y.flatten(), call)
        assert flow.target is not None and flow.target.tolist() == [0, 0, 0]
        assert flow.output.shape == ((3,) if flat else (3, 1))
    checked(model, lambda y: y.flatten(), target=nf.targets.number())
    with pytest.raises(TargetError, match=r"one output, class 0; .*nf\.targets\.binary\(1\)"):
        nf.compile(model, images(1), inverse=STEPS)(images(), 1)
    with pytest.raises(TargetError, match="class 2 does not exist"):
        nf.compile(model, images(1), inverse=STEPS)(images(), 2)


@pytest.mark.parametrize("flat", [True, False])
def test_classes_of_a_binary_head(flat: bool) -> None:
    binary = nf.targets.binary
    model = network(nn.Linear(8, 1), *([Flat()] if flat else []))
    one = checked(model, lambda y: y.flatten(), target=binary(1))
    zero = checked(model, lambda y: -y.flatten(), target=binary(0))
    assert not torch.equal(one.maps["0.3"], zero.maps["0.3"])
    predicted = checked(model, lambda y: y.flatten().abs(), target=binary())
    wanted = zero if one.score[0] < 0 else one
    torch.testing.assert_close(predicted.maps["0.3"][0], wanted.maps["0.3"][0])
    behind = network(nn.Linear(8, 1), nn.Sigmoid())
    checked(behind, lambda y: 0.5 - y[:, 0], target=binary(0, threshold=0.5))
    assert binary(1) == binary(1) != binary(0)
    with pytest.raises(TargetError, match=r"binary\(index=2\): wanted 0, 1"):
        binary(2)


def test_one_of_several_numbers() -> None:
    checked(network(nn.Linear(8, 3)), lambda y: y[:, 2], target=nf.targets.number(2))


class Several(nn.Module):
    """Class scores and an age, from one trunk."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.body, self.kind = network(), kind
        self.scores, self.age = nn.Linear(8, 4).double(), nn.Linear(8, 1).double()

    def forward(self, x: Tensor) -> Any:
        features = self.body(x)
        return self.kind(self.scores(features), self.age(features))


class Pair:
    def __init__(self, logits: Any, age: Any) -> None:
        self.logits, self.age = logits, age


Named = collections.namedtuple("Named", ["logits", "age"])


@pytest.mark.parametrize("kind", [Named, Pair, lambda a, b: {"logits": a, "age": b}])
def test_an_output_by_its_key(kind: Any) -> None:
    def of(name: str) -> Any:
        return lambda y: y[name] if isinstance(y, dict) else getattr(y, name)

    model = Several(kind)
    flow = checked(model, lambda y: of("logits")(y)[:, 1], 1, output="logits")
    assert flow.options["output"] == "logits" and len(flow.top5()[0]) == 4
    assert flow.output is not None and of("age")(flow.output).shape == (3, 1)
    checked(model, lambda y: of("age")(y)[:, 0], output="age")
    checked(model, lambda y: of("age")(y)[:, 0], output=1)
    checked(model, lambda y: -of("age")(y)[:, 0], output="age", target=nf.targets.binary(0))
    explainer = nf.compile(model, images(1), output="logits", inverse=STEPS)
    one = explainer(images(), [lambda y: y[3]] * 3)
    torch.testing.assert_close(one.score, explainer(images(), 3).score)
    with pytest.raises(TargetError, match="no such output; it has 'logits', 'age'"):
        nf.compile(model, images(1), output="boxes")
    with pytest.raises(TargetError, match=r"\(logits, age\).*give nf.compile an output="):
        nf.compile(model, images(1))


def test_an_output_by_its_index() -> None:
    model = Several(lambda a, b: (a, [b, b * 2]))
    checked(model, lambda y: y[0][:, 3], 3, output=0)
    checked(model, lambda y: y[0].max(1).values, output=-2)
    checked(model, lambda y: y[1][1][:, 0], output=1, target=lambda both: both[1][:, 0])
    only = Several(lambda a, b: {"logits": a, "features": None})
    assert len(checked(only, lambda y: y["logits"][:, 1], 1).top5()[0]) == 4
    with pytest.raises(TargetError, match="output=2: the model has no such output; it has 0, 1"):
        nf.compile(model, images(1), output=2)
    with pytest.raises(TargetError, match="'logits': the model returns one tensor"):
        nf.compile(network(nn.Linear(8, 3)), images(1), output="logits")
    with pytest.raises(OptionError, match="wanted the key or index"):
        nf.compile(model, images(1), output=1.5)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_chosen_output_in_a_file(tmp_path: Any) -> None:
    model = Several(lambda a, b: {"logits": a, "age": b})
    explainer = nf.compile(model, images(1), output="logits", inverse=STEPS)
    loaded = nf.artefacts.load(explainer.export(tmp_path / "x.pt2"))
    flow, wanted = loaded(images(), target=2), explainer(images(), 2)
    torch.testing.assert_close(flow.maps["body.0.3"], wanted.maps["body.0.3"])
    assert flow.top5() == wanted.top5()


def segmenter(channels: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                         nn.Conv2d(6, channels, 1), nn.Upsample(scale_factor=2))  # fmt: skip
    return body.double().eval()


def over(y: Tensor, where: Tensor, index: int) -> Tensor:
    return (y[:, index] * where).sum((1, 2)) / where.sum((1, 2))


def test_a_class_over_its_mask() -> None:
    model, segment = segmenter(), nf.targets.segment
    index = int(model(images()).argmax(1).flatten().mode().values)
    checked(model, lambda y: over(y, y.argmax(1) == index, index), target=segment(index))
    mask = torch.zeros(12, 12, dtype=torch.bool)
    mask[3:6, 2:9] = True
    given = checked(model, lambda y: over(y, mask.expand(3, 12, 12), 1), target=segment(1, mask))
    assert not given.importance["input"][..., :1].any()  # seen by none of its positions
    single = segmenter(1)
    checked(single, lambda y: over(y, y[:, 0] > 0, 0), target=segment(0))
    with pytest.raises(NaflowError, match=r"the mask is \[4, 4\]; wanted the output's size"):
        nf.compile(model, images(1), target=segment(1, torch.ones(4, 4)))


def test_each_image_has_its_own_mask() -> None:
    model = segmenter()
    masks = [torch.zeros(12, 12) for _ in range(3)]
    for i, mask in enumerate(masks):
        mask[i, i:] = 1.0
    explainer = nf.compile(model, images(1), target=lambda y: y.mean((1, 2, 3)), inverse=STEPS)
    flow = explainer(images(), [nf.targets.segment(2, mask) for mask in masks])
    torch.testing.assert_close(flow.score, over(model(images()), torch.stack(masks), 2).detach())


def test_a_class_that_is_predicted_nowhere_is_not_known() -> None:
    model = segmenter()
    head: Any = model[3]
    with torch.no_grad():
        head.bias[1] = -100.0
    flow = nf.compile(model, images(1), target=nf.targets.segment(1), inverse=STEPS)(images())
    assert flow.score.isnan().all() and flow.maps["input"].isnan().all()
    with pytest.raises(NaflowError, match="score of image 0, 1, 2 is not finite"):
        flow.plot(kind="strip")


@pytest.mark.parametrize(
    "name",
    ["lraspp_mobilenet_v3_large",
     pytest.param("deeplabv3_mobilenet_v3_large", marks=pytest.mark.slow),
     pytest.param("fcn_resnet50", marks=pytest.mark.slow)],
)  # fmt: skip
def test_torchvisions_segmentation(name: str) -> None:
    torch.manual_seed(0)
    build = getattr(zoo, name)
    model = build(weights=None, weights_backbone=None, num_classes=5).eval()
    x = torch.randn(2, 3, 64, 64)
    y = model(x)["out"].detach()
    index = int(y[0].argmax(0).flatten().mode().values)
    explainer = nf.compile(
        model, x[:1], target=nf.targets.segment(index), layers="backbone", method="hirescam"
    )
    flow = explainer(x)
    torch.testing.assert_close(flow.score, over(y, y.argmax(1) == index, index))
    assert len(flow.maps) == 1 and "out" in flow.output
    with pytest.raises(TargetError, match=r"\[N, 5, 64, 64\].*nf\.targets\.segment"):
        nf.compile(model, x[:1])


@pytest.mark.slow
def test_segmentation_models_pytorch() -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    torch.manual_seed(0)
    x = torch.randn(2, 3, 64, 64)
    for build, classes in ((smp.Unet, 3), (smp.FPN, 1)):
        model = build("resnet18", encoder_weights=None, classes=classes).eval()
        y = model(x).detach()
        where = y[:, 0] > 0 if classes == 1 else y.argmax(1) == 0
        flow = nf.compile(model, x[:1], target=nf.targets.segment(0), method="hirescam")(x)
        torch.testing.assert_close(flow.score, over(y, where, 0))


def test_blocks_and_modules_name_their_last_call_site() -> None:
    from torchvision.models import resnet18

    torch.manual_seed(0)
    model, x = resnet18(weights=None).eval(), torch.randn(1, 3, 64, 64)
    for layers in ("layer4", ["layer4"], model.layer4, [model.layer4]):
        explainer = nf.compile(model, x, layers=layers, method="gradcam")
        assert explainer.layers == ["layer4.1.relu_1"]
    some = nf.compile(model, x, layers=["layer1", model.conv1, "layer2.0"], method="gradcam")
    assert some.layers == ["conv1", "layer1.1.relu_1", "layer2.0.relu_1"]
    flow = some(x)
    assert flow.statistics(layers=["layer2"]).layers == ("layer2.0.relu_1",)
    with pytest.raises(OptionError, match="ReLU is no module inside of the model"):
        nf.compile(model, x, layers=[nn.ReLU()])
    with pytest.raises(NaflowError, match="layer5"):
        nf.compile(model, x, layers=["layer5"])
    tree = nf.decompose(model, x, layers=["layer3", "layer4"])
    wanted = nf.decompose(model, x, layers=["layer3.1.relu_1", "layer4.1.relu_1"])
    assert str(tree) == str(wanted)
