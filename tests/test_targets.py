"""What a target may be, and what it must not be."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_grad_cam.utils.model_targets import (
    BinaryClassifierOutputTarget,
    ClassifierOutputSoftmaxTarget,
    ClassifierOutputTarget,
    SemanticSegmentationTarget,
)
from shelf import hazard, hazard_images, two_heads
from torch import Tensor, nn

import naflow_fx as nf
from naflow_fx.errors import InputError, TargetError

STEPS = nf.Inverse(steps=3)


def name_of(value: object) -> str:
    """repr without addresses, which differ between the processes of a parallel run."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


@pytest.fixture(scope="module")
def explainer() -> nf.Explainer:
    return nf.compile(hazard("in_place"), hazard_images("in_place"), inverse=STEPS)


@pytest.fixture(scope="module")
def x() -> Tensor:
    return hazard_images("in_place", batch=3)


@pytest.fixture(scope="module")
def logits(x: Tensor) -> Tensor:
    with torch.no_grad():
        output: Tensor = hazard("in_place").eval()(x)
    return output


def assert_same_flow(a: nf.AttentionFlow, b: nf.AttentionFlow) -> None:
    torch.testing.assert_close(a.score, b.score)
    assert list(a.maps) == list(b.maps)
    for name in a.maps:
        torch.testing.assert_close(a.maps[name], b.maps[name], rtol=1e-9, atol=1e-12)


def test_none_is_the_predicted_class(explainer: Any, x: Tensor, logits: Tensor) -> None:
    flow = explainer(x)
    assert flow.target.tolist() == logits.argmax(1).tolist() and flow.target.dtype == torch.int64
    torch.testing.assert_close(flow.score, logits.max(1).values)
    torch.testing.assert_close(flow.output, logits)


@pytest.mark.parametrize(
    "target",
    [
        2, [2, 2, 2], (2, 2, 2), torch.tensor(2), torch.tensor([2, 2, 2]),
        torch.tensor([2, 2, 2], dtype=torch.int32), np.array([2, 2, 2]), np.int64(2),
        np.full(3, 2, np.uint8), [np.int64(2)] * 3, [torch.tensor(2)] * 3,
        ClassifierOutputTarget(2), [ClassifierOutputTarget(2)] * 3,
        [ClassifierOutputTarget(2), 2, np.int32(2)],
    ],
    ids=name_of,
)  # fmt: skip
def test_a_class(explainer: Any, x: Tensor, logits: Tensor, target: Any) -> None:
    flow = explainer(x, target)
    assert flow.target.tolist() == [2, 2, 2] and flow.target.dtype == torch.int64
    torch.testing.assert_close(flow.score, logits[:, 2])


def test_a_class_for_each_image(explainer: Any, x: Tensor, logits: Tensor) -> None:
    flow = explainer(x, target=[4, -1, 0])
    wanted = [4, int(logits[1].argmax()), 0]
    assert flow.target.tolist() == wanted
    torch.testing.assert_close(flow.score, logits[torch.arange(3), wanted])
    for i, c in enumerate(wanted):
        assert_same_flow(explainer(x[i : i + 1], c), flow[i])


def test_a_callable_equals_the_class_that_it_selects(explainer: Any, x: Tensor) -> None:
    flow = explainer(x, target=lambda output: output[:, 3])
    assert flow.target is None
    assert_same_flow(flow, explainer(x, 3))


def test_a_callable_of_several_logits(explainer: Any, x: Tensor, logits: Tensor) -> None:
    flow = explainer(x, lambda output: output[:, 0] - torch.mean(output, 1))
    torch.testing.assert_close(flow.score, logits[:, 0] - logits.mean(1))


def test_one_callable_per_image(explainer: Any, x: Tensor, logits: Tensor) -> None:
    def difference(output: Tensor) -> Tensor:
        return output[1] - output[3]

    def third(output: Tensor) -> Tensor:
        return output[3]

    flow = explainer(x, [difference, third, difference])
    wanted = [logits[0, 1] - logits[0, 3], logits[1, 3], logits[2, 1] - logits[2, 3]]
    torch.testing.assert_close(flow.score, torch.stack(wanted))
    assert_same_flow(flow[1], explainer(x[1:2], 3))
    assert flow.target is None and len(flow) == 3


def test_a_callable_is_compiled_once(explainer: Any, x: Tensor) -> None:
    calls = []

    def score(output: Tensor) -> Tensor:
        calls.append(output)
        return output[:, 1]

    first = explainer(x, score)
    traced = len(calls)
    assert_same_flow(explainer(x, score), first)
    assert traced >= 1 and len(calls) == traced
    explainer(x[:1], [score_of_one])
    compiled = explainer._of_target.cache_info().misses
    explainer(x, [score_of_one] * 3)
    assert explainer._of_target.cache_info().misses == compiled


def score_of_one(output: Tensor) -> Tensor:
    return output[1]


def test_a_callable_given_to_compile(x: Tensor, logits: Tensor) -> None:
    compiled = nf.compile(hazard("in_place"), x, target=lambda y: y[:, 3] * 2, inverse=STEPS)
    inputs = [n for n in compiled.graph_module.graph.nodes if n.op == "placeholder"]
    assert len(inputs) == 1
    flow = compiled(x)
    assert flow.target is None
    torch.testing.assert_close(flow.score, 2 * logits[:, 3])
    other = compiled(x, 3)  # a class can still be asked for
    torch.testing.assert_close(other.score, logits[:, 3])
    assert other.target is not None and other.target.tolist() == [3, 3, 3]
    torch.testing.assert_close(compiled(x, lambda y: y[:, 0]).score, logits[:, 0])


def test_a_callable_with_tensors_of_its_own(explainer: Any, x: Tensor, logits: Tensor) -> None:
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.arange(5.0, dtype=torch.float64))

        def forward(self, output: Tensor) -> Tensor:
            return (output * self.weight).sum(1)

    torch.testing.assert_close(
        explainer(x, Weighted()).score, logits @ torch.arange(5.0, dtype=torch.float64)
    )
    weight = torch.arange(5.0, dtype=torch.float64)
    flow = explainer(x, lambda output: (output * weight).sum(1))
    torch.testing.assert_close(flow.score, logits @ weight)


def test_the_class_input_of_the_graph_module(explainer: Any, x: Tensor, logits: Tensor) -> None:
    result = explainer.graph_module(x, torch.tensor([-1, 3, 0]))
    wanted = [int(logits[0].argmax()), 3, 0]
    assert set(result) == {
        "output", "score", "target", "maps", "residual", "norm_ratio", "sigma_max", "bpfm",
        "importance", "used", "neuron_times",
    }  # fmt: skip
    assert result["target"].tolist() == wanted
    torch.testing.assert_close(result["score"], logits[torch.arange(3), wanted])
    assert list(result["maps"]) == explainer.layers


def test_attribute_and_the_context_manager(explainer: Any, x: Tensor) -> None:
    with explainer as same:
        assert same is explainer
    assert_same_flow(explainer.attribute(inputs=x, target=2), explainer(x, 2))


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (5, "class 5 does not exist; wanted 0 to 4, or -1"),
        (-2, "class -2 does not exist; wanted 0 to 4, or -1"),
        ([0, 1, 7], "class 7 does not exist"),
        ([0, 1], "got 2 entries for a batch of 3"),
        (torch.tensor([0, 1, 2, 3]), "got 4 entries for a batch of 3"),
        (np.array([0, 1]), "got 2 entries for a batch of 3"),
        ([], "got 0 entries for a batch of 3"),
        (1.0, "got float 1.0; wanted None, an int"),
        ([0, 1.5, 2], r"got \[0, 1.5, 2\]; wanted"),
        (torch.tensor([0.0, 1.0, 2.0]), "got a tensor of torch.float32; wanted"),
        (np.array([0.0, 1.0, 2.0]), "wanted None, an int"),
        (torch.tensor([[0], [1], [2]]), r"got a tensor of shape \[3, 1\]"),
        (np.zeros((3, 1), dtype=int), "wanted None, an int"),
        (True, "got bool True"),
        ([True, False, True], "wanted None, an int"),
        (torch.tensor([True, False, True]), "got a tensor of torch.bool"),
        (np.array([True, False, True]), "wanted None, an int"),
        ("cat", "got str 'cat'"),
        (["cat", "dog", "cow"], "wanted None, an int"),
        ([0, None, 2], "wanted None, an int"),
        ({"class": 1}, "got dict"),
        ([score_of_one, score_of_one], "got 2 entries, 2 of them callables, for a batch of 3"),
        ([score_of_one, 1, 2], "got 3 entries, 1 of them callables, for a batch of 3"),
    ],
    ids=name_of,
)  # fmt: skip
def test_what_a_target_must_not_be(explainer: Any, x: Tensor, target: Any, words: str) -> None:
    with pytest.raises(TargetError, match=words):
        explainer(x, target)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (
            lambda output: output,
            r"the score has shape \[N, 5\]; wanted one number per sample",
        ),
        (lambda output: output.sum(), r"a reduction over the batch|wanted one number per sample"),
        (lambda output: output[0, 1], "wanted one number per sample"),
        (lambda output: output[:, 1] if output.sum() > 0 else output[:, 2], "can't be traced"),
        (lambda output: 3.0, "wanted one number per sample"),
        (lambda output, other: output[:, 1], "can't be traced"),
    ],
    ids=["all logits", "one number", "one image", "branch", "constant", "two arguments"],
)
def test_what_a_callable_must_not_be(
    explainer: Any, x: Tensor, target: Callable[..., Any], words: str
) -> None:
    with pytest.raises(nf.NaflowError, match=words):
        explainer(x, target)
    with pytest.raises(nf.NaflowError, match=words):
        nf.compile(hazard("in_place"), x, target=target)


def test_classes_are_not_for_compile(x: Tensor) -> None:
    for target in (3, [1, 2], "cat", ClassifierOutputTarget(3)):
        with pytest.raises(TargetError, match=r"explainer\(images, target=281\)"):
            nf.compile(hazard("in_place"), x, target=target)


def test_a_model_with_two_outputs_needs_a_callable() -> None:
    x = hazard_images("two_heads")
    with pytest.raises(TargetError, match="returns a tuple.*target="):
        nf.compile(hazard("two_heads"), x)
    flow = nf.compile(hazard("two_heads"), x, target=two_heads, inverse=STEPS)(x)
    first, second = hazard("two_heads").eval()(x)
    torch.testing.assert_close(flow.score, (first[:, 1] - 0.5 * second[:, 2]).detach())
    torch.testing.assert_close(flow.output, (first.detach(), second.detach()))


class Named(nn.Module):
    """Outputs in a dictionary, one of them nested."""

    def __init__(self) -> None:
        super().__init__()
        self.network = hazard("in_place")

    def forward(self, x: Tensor) -> Any:
        y = self.network(x)
        return {"logits": y, "more": [y * 2, {"half": y / 2}]}


def test_a_model_with_named_outputs(x: Tensor, logits: Tensor) -> None:
    def half(output: Any) -> Tensor:
        score: Tensor = output["logits"][:, 1] + output["more"][1]["half"][:, 2]
        return score

    flow = nf.compile(Named(), x, target=half, inverse=STEPS)(x)
    torch.testing.assert_close(flow.score, logits[:, 1] + logits[:, 2] / 2)
    torch.testing.assert_close(flow.output["more"][1]["half"], logits / 2)
    torch.testing.assert_close(flow[1].output["logits"], logits[1:2])


def test_a_map_of_classes_needs_a_callable(x: Tensor) -> None:
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)).double()
    with pytest.raises(TargetError, match=r"returns \[N, 2, 10, 10\], not \[N, classes\]"):
        nf.compile(body, x)
    explainer = nf.compile(body, x, target=lambda y: y[:, 1].mean((1, 2)), inverse=STEPS)
    assert explainer.layers == ["input", "0", "1", "2"] and explainer(x).maps["2"].shape == (
        3,
        10,
        10,
    )


class Opposite:
    """A callable that happens to have a category; it has no meaning of ours."""

    category = 2

    def __call__(self, output: Tensor) -> Tensor:
        return -output[..., self.category]


class Annotation:
    """No callable, and no class index either."""

    category = 2


def maps_of(model: nn.Module, x: Tensor, score: Callable[..., Tensor]) -> nf.AttentionFlow:
    flow: nf.AttentionFlow = nf.compile(model, x, target=score, inverse=STEPS)(x)
    return flow


def test_an_object_with_a_category_is_called(explainer: Any, x: Tensor) -> None:
    wanted = maps_of(hazard("in_place"), x, lambda y: -y[:, 2])
    assert_same_flow(explainer(x, Opposite()), wanted)
    assert_same_flow(explainer(x, [Opposite() for _ in x]), wanted)
    with pytest.raises(TargetError, match="got Annotation"):
        explainer(x, Annotation())


@pytest.mark.parametrize("single", [True, False])
def test_grad_cams_softmax_target_asks_for_the_rank(
    explainer: Any, x: Tensor, single: bool
) -> None:
    target = ClassifierOutputSoftmaxTarget(2)
    flow = explainer(x, [target] * len(x) if single else target)
    assert_same_flow(flow, maps_of(hazard("in_place"), x, lambda y: y.softmax(1)[:, 2]))


def test_grad_cams_binary_target_of_one_logit(x: Tensor) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                          nn.Linear(4, 1)).double()  # fmt: skip
    explainer = nf.compile(model, x, inverse=STEPS)
    negative = explainer(x, [BinaryClassifierOutputTarget(0)] * len(x))
    assert_same_flow(negative, maps_of(model, x, lambda y: -y[:, 0]))
    positive = explainer(x, [BinaryClassifierOutputTarget(1)] * len(x))
    assert_same_flow(positive, explainer(x, 0))
    with pytest.raises(TargetError, match="ONE sample's output go to the call in a list"):
        explainer(x, BinaryClassifierOutputTarget(0))


def test_grad_cams_segmentation_target_is_of_one_image(x: Tensor) -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)).double()
    mask = np.zeros((10, 10))
    mask[2:5, 3:9] = 1

    def score(y: Tensor) -> Tensor:
        return (y[:, 1] * torch.from_numpy(mask)).sum((1, 2))

    wanted = nf.compile(body, x, target=score, method="hirescam")(x)
    explainer = nf.compile(body, x, target=lambda y: y[:, 0].sum((1, 2)), method="hirescam")
    flow = explainer(x, [SemanticSegmentationTarget(1, mask)] * len(x))
    torch.testing.assert_close(flow.score, wanted.score)
    assert list(flow.maps) == ["input", "0", "1", "2"]
    for name in flow.maps:
        torch.testing.assert_close(flow.maps[name], wanted.maps[name])


@pytest.mark.parametrize("of", [torch.amax, torch.max, torch.sum, torch.mean, Tensor.max])
def test_one_number_of_one_sample(explainer: Any, x: Tensor, of: Any) -> None:
    flow = explainer(x, [lambda y: of(y)] * len(x))
    batch = {torch.sum: lambda y: y.sum(1), torch.mean: lambda y: y.mean(1)}
    wanted = maps_of(hazard("in_place"), x, batch.get(of, lambda y: y.amax(1)))
    assert_same_flow(flow, wanted)


def test_a_callable_that_is_traced_into_another(x: Tensor) -> None:
    """It asks what it is given; while it is traced, that is no tensor."""
    with pytest.raises(TargetError, match="traced, the callable .* gives another score"):
        nf.compile(
            hazard("in_place"), x, target=lambda y: y[:, 0] if isinstance(y, Tensor) else y[:, 1]
        )


def test_a_callable_of_one_sample_of_two_outputs() -> None:
    x = hazard_images("two_heads", batch=2)
    explainer = nf.compile(hazard("two_heads"), x, target=two_heads, inverse=STEPS)
    flow = explainer(x, [lambda both: both[0][1] - 0.5 * both[1][2]] * 2)
    assert_same_flow(flow, explainer(x))


def test_images_are_checked_before_targets(explainer: Any) -> None:
    with pytest.raises(InputError):
        explainer(torch.zeros(1, 3, 5, 5), target="cat")
