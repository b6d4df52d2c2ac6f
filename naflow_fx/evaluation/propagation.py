"""Methods that lead a score back by rules: DeepLIFT by captum, LRP by zennit, CAMs with them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from naflow_fx.evaluation.data import Explain
from naflow_fx.evaluation.modules import beyond, modular, rescalable, until, with_sums
from naflow_fx.evaluation.peers import library

RESCALED = (nn.ReLU, nn.ReLU6, nn.ELU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.Softplus,
            nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)  # fmt: skip
FEW = 2
Relevance = Callable[[fx.GraphModule, Tensor, Tensor, Tensor], Tensor]


def deep_lift(model: nn.Module) -> Explain:
    """|sum over channels| of DeepLIFT's contributions, from an input of 0, by captum.

    The rescale rule (Shrikumar et al., ICML 2017): a nonlinearity passes back its output's change
    over its input's.  Contributions add up to the score minus that of an input of 0, but where
    max pools overlap: captum's rule for them keeps one window of several.
    """
    captum, network = library("captum.attr"), rescalable(modular(model, RESCALED))

    def explain(images: Tensor, target: Tensor) -> Tensor:
        return contributions(captum, network, images, target).sum(1).abs()

    return explain


def lift_cam(model: nn.Module, layers: Sequence[str]) -> Explain:
    """max(sum_k a_k A_k, 0) at each layer; a_k: what channel A_k contributes, by captum.

    a_k is the sum over positions of DeepLIFT's contribution of A_k to the score, from a reference
    of A = 0 (Jung and Oh, ICCV 2021, and their code, github.com/Hyungsik-Jung/LIFT-CAM).
    """
    captum, network = library("captum.attr"), rescalable(modular(model, RESCALED))

    def relevance(rest: fx.GraphModule, x: Tensor, images: Tensor, target: Tensor) -> Tensor:
        return contributions(captum, rest, x, target, images)

    return _weighted(network, layers, relevance)


def contributions(
    captum: Any, network: nn.Module, x: Tensor, target: Tensor, *others: Tensor
) -> Tensor:
    """DeepLIFT's contributions of x to the target's score, shaped as x, from x = 0."""
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")  # that it hooks modules, each time
        found: Tensor = captum.DeepLift(network).attribute(
            x.detach(), 0.0, target=target, additional_forward_args=others or None
        )
    return found.detach()


def lrp(model: nn.Module) -> Explain:
    """max(relevance, 0), summed over channels: layer-wise relevance propagation, by zennit.

    Epsilon for dense layers, z+ for convolutions, flat for the first one (Kohlbrenner et al.,
    IJCNN 2020); batch norms are merged, and sums share relevance out by what they add up.
    """
    composite = library("zennit.composites").EpsilonPlusFlat()
    network = with_sums(modular(model, _of_zennit()), library("zennit.layer").Sum)

    def explain(images: Tensor, target: Tensor) -> Tensor:
        found = relevances(composite, network, images, target, 0.0)
        return F.relu(found.sum(1))

    return explain


def relevance_cam(model: nn.Module, layers: Sequence[str]) -> Explain:
    """max(sum_k r_k A_k, 0) at each layer; r_k: the relevance of channel A_k, by zennit.

    r_k is the sum over positions of the relevance of A_k, led back by the z+ rule from 1 at the
    class and -1 / K at the other K - 1 (Lee et al., CVPR 2021, and their code,
    github.com/mongeoroo/Relevance-CAM); batch norms and sums as for `lrp`.
    """
    composites, types = library("zennit.composites"), library("zennit.types")
    z_plus = library("zennit.rules").ZPlus()
    composite = composites.LayerMapComposite([*composites.layer_map_base(), (types.Linear, z_plus)])
    network, make = modular(model, _of_zennit()), library("zennit.layer").Sum

    def relevance(rest: fx.GraphModule, x: Tensor, images: Tensor, target: Tensor) -> Tensor:
        return relevances(composite, with_sums(rest, make), x, target, None, images)

    return _weighted(network, layers, relevance)


def relevances(
    composite: Any,
    network: nn.Module,
    x: Tensor,
    target: Tensor,
    elsewhere: float | None,
    *others: Tensor,
) -> Tensor:
    """Relevance of x, shaped as x: led back from 1 at the target.

    elsewhere: the relevance of each other one of K outputs; None: -1 / K.
    """
    with torch.enable_grad(), composite.context(network) as changed:
        inputs = x.detach().clone().requires_grad_()
        output = changed(inputs, *others)
        share = -1 / output.shape[1] if elsewhere is None else elsewhere
        start = torch.full_like(output, share).scatter(1, target[:, None], 1.0)
        (found,) = torch.autograd.grad(output, inputs, start)
    return found.detach()


def _of_zennit() -> tuple[type, ...]:
    """Kinds of modules that zennit leads relevance through; a max pool gives it to the largest."""
    types = library("zennit.types")
    return types.Activation, types.MaxPool


def _weighted(network: fx.GraphModule, layers: Sequence[str], relevance: Relevance) -> Explain:
    """max(sum_k w_k A_k, 0), w_k the sum over positions of `relevance(rest, A, images, target)`."""
    features = until(network, layers)

    def explain(images: Tensor, target: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            found = features(images)
        maps = {}
        for layer, x in found.items():
            rest = beyond(network, layer)
            # few at a time: the libraries keep what every module takes and gives
            parts = zip(*(tensor.split(FEW) for tensor in (x, images, target)), strict=True)
            weights = torch.cat([relevance(rest, *part).flatten(2).sum(2) for part in parts])
            maps[layer] = F.relu(torch.einsum("nk,nk...->n...", weights, x))
        return maps

    return explain
