"""Maps against their published formulas, written again here, on autograd's gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from shelf import (
    HAZARDS,
    Reference,
    class_one,
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
from naflow_fx.maps import focus

Formula = Callable[[Tensor, Tensor], Tensor]
CHANNELS_LAST = {
    ("channels_last", "mix"),
    ("channels_last", "permute"),
    ("channels_last", "relu_1"),
}


# Activations a and gradients g are [N, C, space...]; a map is [N, space...].


def gradcam(a: Tensor, g: Tensor) -> Tensor:
    """Selvaraju et al., ICCV 2017, Eqs. 1 and 2."""
    alpha = g.flatten(2).mean(2)
    return torch.einsum("nc...,nc->n...", a, alpha).clamp_min(0)


def hirescam(a: Tensor, g: Tensor) -> Tensor:
    """Draelos and Carin, arXiv 2011.08891, with the final ReLU of the other methods."""
    return sum_channels(a * g).clamp_min(0)


def layercam(a: Tensor, g: Tensor) -> Tensor:
    """Jiang et al., TIP 2021, Eqs. 5 to 7."""
    return sum_channels(g.clamp_min(0) * a).clamp_min(0)


def gradcam_plus_plus(a: Tensor, g: Tensor) -> Tensor:
    """Chattopadhay et al., WACV 2018, Eqs. 19, 10 and 5; a weight is 0 where its divisor is 0."""
    total = a.flatten(2).sum(2).reshape(*a.shape[:2], *[1] * (a.dim() - 2))
    divisor = 2 * g**2 + total * g**3
    alpha = torch.zeros_like(a)
    alpha[divisor != 0] = (g**2)[divisor != 0] / divisor[divisor != 0]
    weights = (alpha * g.clamp_min(0)).flatten(2).sum(2)
    return torch.einsum("nc...,nc->n...", a, weights).clamp_min(0)


def xgradcam(a: Tensor, g: Tensor) -> Tensor:
    """Fu et al., BMVC 2020, Eq. 8; a weight is 0 where the activations' sum is 0."""
    total, product = a.flatten(2).sum(2), (a * g).flatten(2).sum(2)
    weights = torch.zeros_like(total)
    weights[total != 0] = product[total != 0] / total[total != 0]
    return torch.einsum("nc...,nc->n...", a, weights).clamp_min(0)


def sum_channels(x: Tensor) -> Tensor:
    return torch.stack(x.unbind(1)).sum(0)


FORMULAS: dict[str, Formula] = {
    "gradcam": gradcam,
    "hirescam": hirescam,
    "layercam": layercam,
    "gradcam++": gradcam_plus_plus,
    "xgradcam": xgradcam,
}


def channels_second(name: str, site: str, x: Tensor) -> Tensor:
    """[N, C, space...] of a value in its own layout."""
    return x.movedim(-1, 1) if (name, site) in CHANNELS_LAST else x


@cache
def reference_of(name: str) -> tuple[nn.Module, Tensor, dict[str, tuple[Tensor, Tensor]]]:
    """A network, images, and activation and gradient of every intermediate."""
    if name in HAZARDS:
        model, x = hazard(name), hazard_images(name)
    else:
        model, x = densenet() if name == "densenet" else network(name), images((3, 64, 64))
    reference = Reference(model, x)
    gradients = reference.gradients(score_of(name))
    return model, x, {k: (reference.values[k].detach(), g) for k, g in gradients.items()}


@pytest.mark.parametrize("method", FORMULAS)
@pytest.mark.parametrize("name", [*HAZARDS, "resnet18", "densenet"])
def test_published_formulas_at_every_call_site(name: str, method: str) -> None:
    model, x, pairs = reference_of(name)
    flow = nf.compile(model, x, target=score_of(name), method=method)(x)
    assert not flow.residual and not flow.norm_ratio and not flow.bpfm
    visible = 0
    for site, found in flow.maps.items():
        a, g = (channels_second(name, site, t) for t in pairs[site])
        wanted, scale = FORMULAS[method](a, g), (a * g).abs().max()
        if wanted.max() > 1e-12 * scale:
            visible += 1
            assert relative_error(found, wanted) < 1e-8, site
        else:
            assert found.max() <= 1e-9 * scale, site
    assert visible > 0.5 * len(flow.maps)


LAST = {"resnet18": "layer4.1.relu_1", "densenet": "relu", "mobilenet_v2": "features.18.2"}


@pytest.mark.parametrize("name", LAST)
def test_the_last_map_of_pool_and_linear_is_its_grad_cam(name: str) -> None:
    """The cascade starts there: Z is the activation, Lambda is the class weight / positions."""
    model = densenet() if name == "densenet" else network(name)
    x, last = images((3, 64, 64)), LAST[name]
    explainer = nf.compile(model, x, inverse=nf.Inverse(steps=1), layers=[last], keep="importance")
    flow = explainer(x)
    assert flow.target is not None
    reference = Reference(model, x)
    features = reference.values[last].detach()
    head: Any = model.fc if name == "resnet18" else model.classifier
    linear: Any = head[-1] if isinstance(head, nn.Sequential) else head
    weights = linear.weight.detach()[flow.target] / features[0, 0].numel()
    wanted = torch.einsum("nchw,nc->nhw", features, weights).clamp_min(0)
    assert relative_error(flow.maps[last], wanted) < 1e-10
    gradients = reference.gradients(lambda y: y[torch.arange(len(x)), flow.target])
    assert relative_error(flow.maps[last], gradcam(features, gradients[last])) < 1e-10
    assert flow.residual[last].eq(0).all() and flow.norm_ratio[last].eq(1).all()


@pytest.mark.parametrize("name", ["view_flatten", "mean_head", "signal", "volume", "two_pools"])
def test_the_last_map_of_any_head_is_its_hirescam(name: str) -> None:
    model, x = hazard(name), hazard_images(name)
    flow = nf.compile(model, x, target=class_one, inverse=nf.Inverse(steps=2))(x)
    reference = Reference(model, x)
    gradients = reference.gradients(class_one)
    starts = [site for site, r in flow.norm_ratio.items() if r.eq(1).all()]
    assert list(flow.maps)[-1] in starts
    for site in starts:
        wanted = hirescam(reference.values[site].detach(), gradients[site])
        assert relative_error(flow.maps[site], wanted) < 1e-10, site


def called_once(model: nn.Module) -> list[str]:
    """The leaf modules that a forward pass calls once, by counting calls."""
    counts: dict[str, int] = {}

    def count(name: str) -> Callable[..., None]:
        return lambda *_: counts.__setitem__(name, counts.get(name, 0) + 1)

    leaves = [(n, m) for n, m in model.named_modules() if not list(m.children())]
    hooks = [module.register_forward_hook(count(name)) for name, module in leaves]
    x = images((3, 32, 32), batch=1)
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return [name for name, n in counts.items() if n == 1]


@pytest.mark.parametrize("name", ["resnet18", "densenet"])
def test_hirescam_is_captums_gradient_times_activation(name: str) -> None:
    captum = pytest.importorskip("captum.attr")
    model = (densenet() if name == "densenet" else network(name)).eval()
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    x = images((3, 32, 32))
    flow = nf.compile(model, x, method="hirescam")(x, target=[3, 7])
    modules = dict(model.named_modules())
    compared = 0
    for site in called_once(model):
        if site not in flow.maps:
            continue
        attribution = captum.LayerGradientXActivation(model, modules[site]).attribute(
            x.clone(), target=torch.tensor([3, 7])
        )
        wanted = attribution.detach().sum(1).clamp_min(0)
        torch.testing.assert_close(flow.maps[site], wanted, rtol=1e-9, atol=1e-12, msg=site)
        compared += 1
    # resnet18: 20 convolutions, 20 norms, the first ReLU, the max pool; its other ReLUs run twice.
    # densenet: 4 at the stem, 6 in each of 4 layers, 4 in the transition, the last norm.
    assert compared == {"resnet18": 42, "densenet": 33}[name]


def test_gradient_methods_at_the_second_call_of_a_module() -> None:
    """What hook libraries can't address: relu_1 and relu of one module differ."""
    model, x = hazard("reused_relu"), hazard_images("reused_relu")
    flow = nf.compile(model, x, method="layercam")(x)
    assert {"relu", "relu_1", "relu_2"} <= set(flow.maps)
    assert relative_error(flow.maps["relu_1"], flow.maps["relu_2"]) > 0.1


@pytest.mark.parametrize("name", [*HAZARDS, "densenet"])
def test_focused_never_adds_to_gradient_times_activation(name: str) -> None:
    """Its formula: tests/test_focused.py."""
    model, x, pairs = reference_of(name)
    flow = nf.compile(model, x, target=score_of(name), method="focused")(x)
    assert not flow.residual and not flow.norm_ratio and not flow.bpfm
    for site, found in flow.maps.items():
        a, g = (channels_second(name, site, t) for t in pairs[site])
        whole = focus.smooth(sum_channels((a * g).clamp_min(0)))
        assert (found >= 0).all() and (found <= whole + 1e-9 * (a * g).abs().max()).all(), site
