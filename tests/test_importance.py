"""Lambda equals autograd's gradient at every call site, on whole networks and hazards."""

from __future__ import annotations

import pytest
import torch
from shelf import (
    HAZARDS,
    Reference,
    densenet,
    hazard,
    hazard_images,
    images,
    network,
    relative_error,
    score_of,
)
from torch import Tensor, nn

import naflow_fx as nf

TOLERANCE = 1e-9


def compare(model: nn.Module, x: Tensor, name: str = "") -> tuple[list[str], list[str]]:
    """Checks every call site against autograd.

    Returns the call sites, and those spatial intermediates of the reference that are none.
    """
    score = score_of(name)
    explainer = nf.compile(model, x, target=score, method="hirescam", keep="importance")
    flow = explainer(x)
    reference = Reference(model, x)
    gradients = reference.gradients(score)
    torch.testing.assert_close(flow.score, score(reference.output).detach(), rtol=1e-9, atol=0)
    assert list(flow.importance) == explainer.layers
    for site, found in flow.importance.items():
        assert relative_error(found, gradients[site]) < TOLERANCE, site
    spatial = [k for k, g in gradients.items() if g.dim() == x.dim() and g[0, 0].numel() > 1]
    return explainer.layers, [site for site in spatial if site not in flow.importance]


@pytest.mark.parametrize("name", HAZARDS)
def test_hazards(name: str) -> None:
    sites, missing = compare(hazard(name), hazard_images(name), name)
    assert len(sites) >= 3 and missing == []


def test_resnet18_has_57_conv_norm_and_activation_call_sites() -> None:
    model, x = network("resnet18"), images((3, 64, 64))
    sites, missing = compare(model, x)
    kinds = [site.rsplit(".", 1)[-1].split("_")[0].rstrip("12") for site in sites]
    convs = [s for s in sites if "conv" in s or s.endswith("downsample.0")]
    norms = [s for s in sites if "bn" in s or s.endswith("downsample.1")]
    assert (len(convs), len(norms), kinds.count("relu")) == (20, 20, 17)
    assert kinds.count("add") == 8 and {"x", "maxpool"} <= set(sites)
    assert len(sites) == 57 + 8 + 2 and missing == []


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("resnet50", 53 + 53 + 49 + 16 + 2),
        ("vgg11_bn", 8 * 3 + 5 + 2),
        ("mobilenet_v2", 52 + 52 + 35 + 10 + 1),
    ],
)
def test_networks(name: str, count: int) -> None:
    sites, missing = compare(network(name), images((3, 64, 64), batch=1))
    assert len(sites) == count and missing == []


def test_densenet() -> None:
    sites, missing = compare(densenet(), images((3, 64, 64)))
    assert len([s for s in sites if s.rsplit(".", 1)[-1].startswith("cat")]) == 6
    assert missing == []


def test_score_of_the_class_given_with_the_call() -> None:
    model, x = hazard("in_place"), hazard_images("in_place", batch=3)
    flow = nf.compile(model, x, method="hirescam", keep="importance")(x, target=[4, 0, 2])
    reference = Reference(model, x)
    gradients = reference.gradients(lambda output: output[torch.arange(3), [4, 0, 2]])
    for site, found in flow.importance.items():
        assert relative_error(found, gradients[site]) < TOLERANCE, site


def test_a_planted_wrong_value_is_noticed() -> None:
    """The comparison fails where the gradient is another tensor's: the hook libraries' error."""
    model, x = hazard("reused_relu"), hazard_images("reused_relu")
    flow = nf.compile(model, x, target=score_of(""), method="hirescam", keep="importance")(x)
    gradients = Reference(model, x).gradients(score_of(""))
    assert relative_error(flow.importance["relu_1"], gradients["relu_1"]) < TOLERANCE
    assert relative_error(flow.importance["relu_1"], gradients["relu_2"]) > 0.1
