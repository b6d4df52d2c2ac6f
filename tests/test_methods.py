"""The gradient methods against their published formulas, and NAFlow's last map against Grad-CAM."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from shelf import Reference, class_one, densenet, hazard, hazard_images, images, network
from torch import Tensor, nn

import naflow_fx as nf

Formula = Callable[[Tensor, Tensor], Tensor]


def relu(x: Tensor) -> Tensor:
    return x.clamp(min=0)


def space(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.dim()))


def gradcam(g: Tensor, x: Tensor) -> Tensor:
    """Selvaraju et al. 2017, Eqs. 1 and 2: alpha = the mean of the gradient over space."""
    alpha = g.mean(space(g), keepdim=True)
    return relu((alpha * x).sum(1))


def hirescam(g: Tensor, x: Tensor) -> Tensor:
    """Draelos and Carin 2020: gradient times activation, summed over channels."""
    return relu((g * x).sum(1))


def layercam(g: Tensor, x: Tensor) -> Tensor:
    """Jiang et al. 2021, Eqs. 5 and 6: positive gradients as the weight of each location."""
    return relu((relu(g) * x).sum(1))


def gradcam_plus_plus(g: Tensor, x: Tensor) -> Tensor:
    """Chattopadhay et al. 2018, Eqs. 11 and 19, location by location."""
    bottom = 2 * g**2 + x.sum(space(x), keepdim=True) * g**3
    alpha = torch.zeros_like(g)
    alpha[bottom != 0] = (g**2)[bottom != 0] / bottom[bottom != 0]
    return relu(((alpha * relu(g)).sum(space(g), keepdim=True) * x).sum(1))


def xgradcam(g: Tensor, x: Tensor) -> Tensor:
    """Fu et al. 2020, Eq. 7: gradients weighted by each location's share of the activation."""
    total = x.sum(space(x), keepdim=True)
    alpha = torch.where(total == 0, torch.zeros_like(g), g * x / total).sum(space(g), keepdim=True)
    return relu((alpha * x).sum(1))


FORMULAS: dict[str, Formula] = {
    "gradcam": gradcam,
    "hirescam": hirescam,
    "layercam": layercam,
    "gradcam++": gradcam_plus_plus,
    "xgradcam": xgradcam,
}
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "resnet18": (lambda: network("resnet18"), images((3, 64, 64))),
    "densenet": (densenet, images((3, 64, 64))),
    "gate": (lambda: hazard("gate"), hazard_images("gate")),
}


@pytest.mark.parametrize("method", FORMULAS)
@pytest.mark.parametrize("name", NETWORKS)
def test_formula_on_autograds_gradients_at_every_call_site(name: str, method: str) -> None:
    build, x = NETWORKS[name]
    model = build()
    flow = nf.compile(model, x, method=method)(x, target=1)
    reference = Reference(model, x)
    gradients = reference.gradients(class_one)
    assert len(flow.maps) >= 5 and flow.residual == {}
    for site, found in flow.maps.items():
        wanted = FORMULAS[method](gradients[site], reference.values[site].detach())
        torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-12 * float(wanted.max() + 1))


@pytest.mark.parametrize("kind", ["resnet18", "mobilenet_v2", "squeezenet1_1"])
def test_last_map_of_pool_and_linear_is_gradcam(kind: str) -> None:
    """Global average pool + linear: Lambda is constant over space, and Z is the activation."""
    model, x = network(kind), images((3, 64, 64))
    flow = nf.compile(model, x, inverse=nf.Inverse(steps=1))(x)
    reference = Reference(model, x)
    last = list(flow.maps)[-1]
    gradient = reference.gradients(lambda output: output.amax(1))[last]
    wanted = gradcam(gradient, reference.values[last].detach())
    assert wanted.max() > 0
    torch.testing.assert_close(flow.maps[last], wanted, rtol=1e-9, atol=0)


def test_last_map_is_hirescams_for_a_head_that_reads_space() -> None:
    model, x = network("vgg11"), images((3, 64, 64))
    flow = nf.compile(model, x, layers=["avgpool"])(x, target=1)
    reference = Reference(model, x)
    wanted = hirescam(reference.gradients(class_one)["avgpool"], reference.values["avgpool"])
    torch.testing.assert_close(flow.maps["avgpool"], wanted.detach(), rtol=1e-9, atol=1e-15)


def test_hirescam_equals_captum_at_every_module_called_once() -> None:
    attr = pytest.importorskip("captum.attr")
    model, x = network("resnet18").eval(), images((3, 64, 64))
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    flow = nf.compile(model, x, method="hirescam")(x, target=1)
    modules = {k: m for k, m in model.named_modules() if k in flow.maps and not list(m.children())}
    once = [k for k in modules if f"{k}_1" not in flow.maps]
    assert len(once) >= 41  # 20 convolutions, 20 norms, the max pool, the first ReLU
    for name in once:
        explained = attr.LayerGradientXActivation(model, modules[name]).attribute(x, target=1)
        wanted = relu(explained.detach().sum(1))
        torch.testing.assert_close(flow.maps[name], wanted, rtol=1e-9, atol=1e-13)
