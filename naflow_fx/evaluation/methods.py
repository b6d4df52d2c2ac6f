"""Methods by name, for the command line and for docs/evaluation.md."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, get_args

from torch import Tensor, nn

from naflow_fx.compiler import compile
from naflow_fx.errors import EvaluationError, check_choice
from naflow_fx.evaluation import peers
from naflow_fx.evaluation.data import Explain
from naflow_fx.evaluation.fidelity import KEEP
from naflow_fx.options import Inverse, Method

OWN: dict[str, dict[str, Any]] = {
    "naflow": {},
    "naflow-all": {"inverse": Inverse(rows="all")},
    "naflow-channelwise": {"reduction": "channelwise"},
    **{name: {"method": name} for name in get_args(Method) if name != "naflow"},
}
CHANNELWISE = "gradient-channelwise"
AT_ONE_MODULE: dict[str, Callable[[nn.Module, str], Explain]] = {
    "score-cam": peers.score_cam,
    "ablation-cam": peers.ablation_cam,
}
AT_LAYERS: dict[str, Callable[[nn.Module, Sequence[str]], Explain]] = {
    CHANNELWISE: peers.gradient_channelwise,
    "lift-cam": peers.lift_cam,
    "relevance-cam": peers.relevance_cam,
}
OF_THE_INPUT: dict[str, Callable[[nn.Module], Explain]] = {
    "full-grad": peers.full_grad,
    "integrated-gradients": peers.integrated_gradients,
    "deep-lift": peers.deep_lift,
    "lrp": peers.lrp,
    "rise": peers.rise,
}
NAMES = (*OWN, *AT_LAYERS, *AT_ONE_MODULE, *OF_THE_INPUT)


def make(
    name: str,
    model: nn.Module,
    example: Tensor,
    layers: Sequence[str] | None = None,
    metrics: Collection[str] = (),
) -> Explain:
    """The explainer of a method.

    Args:
        name: one of `NAMES`.
        model: the network.
        example: [1, C, H, W].
        layers: call sites, None for all; one name of a module for Score-CAM and Ablation-CAM.
        metrics: what is to be measured; NAFlow keeps Z for "fidelity".

    Raises:
        EvaluationError: no such method, or a library or the layer is missing.
    """
    check_choice(EvaluationError, "make", NAMES, name=name)
    if name in OWN:
        keep = KEEP if "fidelity" in metrics and "method" not in OWN[name] else ()
        return compile(model, example, layers=layers, keep=keep, **OWN[name])
    if name in AT_LAYERS:
        sites = compile(model, example, layers=layers, method="layercam").layers
        return AT_LAYERS[name](model, sites)
    if name in OF_THE_INPUT:
        return OF_THE_INPUT[name](model)
    modules = dict(model.named_modules())
    if layers is None or len(layers) != 1 or layers[0] not in modules:
        raise EvaluationError(f"{name} takes hundreds of passes a layer: wanted the name of one "
                              f"module as layers=, got {layers!r}")  # fmt: skip
    return AT_ONE_MODULE[name](model, layers[0])
