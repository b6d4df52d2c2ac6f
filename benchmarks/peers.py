"""Other libraries, each as its documentation says to call it: maps by the name of the module.

Each is given every module, blocks included, whose result is a call site's, all in one call where
the library takes a list.  None names a call site that is no module's result (a sum, a
concatenation, a function, a module's second call).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

Maps = dict[str, Tensor]  # module -> [N, H, W], as the library returns it
Make = Callable[[nn.Module, Tensor, list[str]], Callable[[], Maps]]


@dataclass(frozen=True)
class Peer:
    """A way to call a library.

    Attributes:
        method: the method of `tests/test_methods.py` that its maps are to equal.
        make: of the model, the images and the modules' names: a call.
        slow: one forward and backward pass per module.
    """

    method: str
    make: Make
    slow: bool = False


def gradcam_list(net: nn.Module, x: Tensor, names: list[str]) -> Callable[[], Maps]:
    """pytorch-grad-cam with all modules in one list; the maps before it averages them."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    kind = _unaveraged(GradCAM)

    def call() -> Maps:
        modules = [net.get_submodule(name) for name in names]
        with torch.no_grad():
            targets = [ClassifierOutputTarget(int(c)) for c in net(x).argmax(1)]
        with torch.enable_grad(), kind(net, modules) as cam:
            maps = cam(x, targets)
        return {n: torch.from_numpy(m[:, 0]) for n, m in zip(names, maps, strict=True)}

    return call


def _unaveraged(kind: Any) -> Any:
    """A class of pytorch-grad-cam that returns each layer's map, as large as the layer."""

    class PerLayer(kind):  # type: ignore[misc]
        def aggregate_multi_layers(self, cam_per_target_layer: Any) -> Any:
            return cam_per_target_layer

        def get_target_width_height(self, input_tensor: Tensor) -> None:
            return None

    return PerLayer


def gradcam_each(net: nn.Module, x: Tensor, names: list[str]) -> Callable[[], Maps]:
    """pytorch-grad-cam, one `GradCAM(model, [layer])` after the other."""
    from pytorch_grad_cam import GradCAM

    kind = _unaveraged(GradCAM)

    def call() -> Maps:
        found = {}
        for name in names:
            with torch.enable_grad(), kind(net, [net.get_submodule(name)]) as cam:
                found[name] = torch.from_numpy(cam(x, None)[0][:, 0])
        return found

    return call


def torchcam(net: nn.Module, x: Tensor, names: list[str], kind: str) -> Callable[[], Maps]:
    """torchcam with all modules in one list."""
    from torchcam import methods

    def call() -> Maps:
        with torch.enable_grad(), getattr(methods, kind)(net, list(names)) as cam:
            scores = net(x)
            maps = cam(scores.argmax(1).tolist(), scores)
        return dict(zip(names, maps, strict=True))

    return call


def captum(net: nn.Module, x: Tensor, names: list[str]) -> Callable[[], Maps]:
    """Captum's LayerGradientXActivation with all modules in one list, summed over channels."""
    from captum.attr import LayerGradientXActivation

    def call() -> Maps:
        modules = [net.get_submodule(name) for name in names]
        with torch.no_grad():
            target = net(x).argmax(1)
        with torch.enable_grad():
            parts = LayerGradientXActivation(net, modules).attribute(x, target)
        maps = [(p[0] if isinstance(p, tuple) else p).sum(1).relu() for p in parts]
        return dict(zip(names, maps, strict=True))

    return call


def zennit(net: nn.Module, x: Tensor, names: list[str]) -> Callable[[], Maps]:
    """zennit's layer-wise relevance propagation to the input, EpsilonPlusFlat."""
    from zennit.attribution import Gradient
    from zennit.canonizers import SequentialMergeBatchNorm
    from zennit.composites import EpsilonPlusFlat
    from zennit.torchvision import ResNetCanonizer

    resnet = "ResNet" in type(net).__name__
    canonizers = [ResNetCanonizer() if resnet else SequentialMergeBatchNorm()]

    def call() -> Maps:
        composite = EpsilonPlusFlat(canonizers=canonizers)
        with torch.no_grad():  # before hooks are on the model: they need gradients
            scores = net(x)
        chosen = nn.functional.one_hot(scores.argmax(1), scores.shape[1]).to(scores)
        with torch.enable_grad(), Gradient(net, composite) as attributor:
            attributor(x.detach().requires_grad_(), chosen)
        return {}

    return call


PEERS: dict[str, Peer] = {
    "pytorch-grad-cam GradCAM, list": Peer("gradcam", gradcam_list),
    "pytorch-grad-cam GradCAM, layer by layer": Peer("gradcam", gradcam_each, slow=True),
    "torchcam GradCAM, list": Peer("gradcam", partial(torchcam, kind="GradCAM")),
    "torchcam LayerCAM, list": Peer("layercam", partial(torchcam, kind="LayerCAM")),
    "Captum LayerGradientXActivation, list": Peer("hirescam", captum),
    "zennit LRP EpsilonPlusFlat, input only": Peer("none", zennit),
}


@contextmanager
def as_found(net: nn.Module) -> Iterator[nn.Module]:
    """Leaves no gradient behind, whatever the library does to the model."""
    try:
        yield net
    finally:
        net.zero_grad(set_to_none=True)


def hookable(net: nn.Module, sites: list[str]) -> dict[str, list[str]]:
    """Modules, blocks included -> the call sites whose map each could give.

    In the order in which they return: pytorch-grad-cam tells its layers apart by that.
    """
    found = {}
    for name, _ in net.named_modules():
        inside = [s for s in sites if s.startswith(name + ".")]
        calls = [s for s in sites if s == name or _is_call_of(s, name)]
        if name and (calls or inside):
            found[name] = calls or inside[-1:]
    position = {site: i for i, site in enumerate(sites)}
    order = sorted(found, key=lambda name: (position[found[name][0]], -name.count(".")))
    return {name: found[name] for name in order}


def _is_call_of(site: str, name: str) -> bool:
    head, _, count = site.rpartition("_")
    return head == name and count.isdigit()
