"""Other methods as explainers for `nf.evaluate`: callables of (images, target) that give maps.

Some lead a score back by rules (DeepLIFT by captum, LRP by zennit, CAMs with them); perturbation
methods take hundreds of forward passes an image.  A missing library is an `EvaluationError` that
says what to install.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from naflow_fx import keys
from naflow_fx.errors import EvaluationError, check_positive, required
from naflow_fx.evaluation.data import Explain
from naflow_fx.evaluation.modules import beyond, modular, rescalable, twin, until, with_sums


def library(name: str) -> Any:
    """A library of the extra "evaluate"; EvaluationError: it isn't there."""
    return required(name, extra="evaluate", what="this method", error=EvaluationError)


def gradient_channelwise(model: nn.Module, layers: Sequence[str]) -> Explain:
    """sum_d max(dy/dx_d x_d, 0) at each layer: gradient x activation, cut per channel.

    By autograd; names are those of `nf.compile`.
    """
    network = modular(model)
    *_, end = network.graph.nodes
    extract = until(network, [*layers, str(end.args[0].meta[keys.SITE])])

    def explain(images: Tensor, target: Tensor) -> dict[str, Tensor]:
        with torch.enable_grad():
            *found, output = extract(images.detach().requires_grad_()).values()
            score = output.gather(1, target[:, None]).sum()
            gradients = torch.autograd.grad(score, found)
        pairs = zip(layers, found, gradients, strict=True)
        return {name: F.relu(g * x).sum(1).detach() for name, x, g in pairs}

    return explain


def score_cam(model: nn.Module, layer: str) -> Explain:
    """Score-CAM at one module (Wang et al., CVPRW 2020), by pytorch-grad-cam."""
    return _grad_cam("ScoreCAM", twin(model), layer)


def ablation_cam(model: nn.Module, layer: str) -> Explain:
    """Ablation-CAM at one module (Desai and Ramaswamy, WACV 2020), by pytorch-grad-cam."""
    return _grad_cam("AblationCAM", twin(model), layer)


def full_grad(model: nn.Module) -> Explain:
    """FullGrad (Srinivas and Fleuret, NeurIPS 2019), by pytorch-grad-cam.

    The sum of `|gradient x input|` and, of every layer with a bias, `|gradient x bias|`, each
    channel scaled to [0, 1] and to the input's size.  A batch norm's bias is what it adds in all;
    what a ReLU6 adds where it saturates is no module's bias, and is left out.
    """
    return _grad_cam("FullGrad", modular(model))


def _grad_cam(name: str, network: nn.Module, layer: str | None = None) -> Explain:
    """A method of pytorch-grad-cam, of a module or of the input; maps are as large as the input."""
    kind = getattr(library("pytorch_grad_cam"), name)
    output_target = library("pytorch_grad_cam.utils.model_targets").ClassifierOutputTarget
    modules = [] if layer is None else [network.get_submodule(layer)]

    def explain(images: Tensor, target: Tensor) -> Tensor | dict[str, Tensor]:
        few = len(images) if modules else 1  # FullGrad enlarges all channels of what it is given
        bars = contextlib.redirect_stderr(io.StringIO())  # one an image
        with torch.enable_grad(), bars, kind(network, modules) as cam:
            cam.batch_size = 32
            pairs = zip(torch.split(images, few), torch.split(target, few), strict=True)
            parts = [cam(x, [output_target(int(t)) for t in classes]) for x, classes in pairs]
        maps = torch.from_numpy(np.concatenate(parts))
        return maps if layer is None else {layer: maps}

    return explain


def integrated_gradients(model: nn.Module, steps: int = 32) -> Explain:
    """`|sum over channels|` of integrated gradients from 0 (Sundararajan et al., 2017), captum."""
    check_positive(EvaluationError, "integrated_gradients", steps=steps)
    method = library("captum.attr").IntegratedGradients(twin(model))

    def explain(images: Tensor, target: Tensor) -> Tensor:
        with torch.enable_grad():
            found: Tensor = method.attribute(images, target=target, n_steps=steps,
                                             internal_batch_size=32)  # fmt: skip
        return found.detach().sum(1).abs()

    return explain


def rise(
    model: nn.Module, masks: int = 500, cells: int = 7, keep: float = 0.5, seed: int = 0
) -> Explain:
    """RISE (Petsiuk et al., BMVC 2018): the mean of random masks, by the probability they leave.

    Args:
        model: the network.
        masks: how many; the paper takes 4000 to 8000.
        cells: of a mask, each side; they are enlarged bilinearly, and shifted.
        keep: share of cells that are 1.
        seed: of the masks.
    """
    check_positive(EvaluationError, "rise", masks=masks, cells=cells)
    network = twin(model)

    def explain(images: Tensor, target: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        total = images.new_zeros(images.shape[0], *images.shape[2:])
        with torch.no_grad():
            for start in range(0, masks, 16):
                part = _masks(min(16, masks - start), cells, keep, images, generator)
                for i, image in enumerate(images):
                    share = network(image * part).softmax(1)[:, target[i]]
                    total[i] += (share[:, None, None] * part[:, 0]).sum(0)
        # what every mask shows of a pixel on average tells nothing of the image
        return F.relu(total - total.flatten(1).amin(1)[:, None, None]) / (masks * keep)

    return explain


def _masks(count: int, cells: int, keep: float, like: Tensor, generator: Any) -> Tensor:
    """Random smooth masks [count, 1, H, W] in [0, 1], each shifted within a cell."""
    height, width = like.shape[2:]
    cell = (-(-height // cells), -(-width // cells))
    grid = (torch.rand(count, 1, cells + 1, cells + 1, generator=generator) < keep).float()
    size = ((cells + 1) * cell[0], (cells + 1) * cell[1])
    large = F.interpolate(grid, size, mode="bilinear", align_corners=False)
    shifts = (torch.rand(count, 2, generator=generator) * torch.tensor(cell)).long().tolist()
    cut = [m[:, y : y + height, x : x + width] for m, (y, x) in zip(large, shifts, strict=True)]
    return torch.stack(cut).to(like)


RESCALED = (nn.ReLU, nn.ReLU6, nn.ELU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.Softplus,
            nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)  # fmt: skip
FEW = 2
Relevance = Callable[[fx.GraphModule, Tensor, Tensor, Tensor], Tensor]  # rest, A, target, images


def deep_lift(model: nn.Module) -> Explain:
    """`|sum over channels|` of DeepLIFT's contributions, from an input of 0, by captum.

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
    relevance = partial(contributions, library("captum.attr"))
    return _weighted(rescalable(modular(model, RESCALED)), layers, relevance)


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
    make = library("zennit.layer").Sum

    def relevance(rest: fx.GraphModule, x: Tensor, target: Tensor, images: Tensor) -> Tensor:
        return relevances(composite, with_sums(rest, make), x, target, None, images)

    return _weighted(modular(model, _of_zennit()), layers, relevance)


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
    """max(sum_k w_k A_k, 0), w_k the sum over positions of `relevance(rest, A, target, images)`."""
    features = until(network, layers)

    def explain(images: Tensor, target: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            found = features(images)
        maps = {}
        for layer, x in found.items():
            rest = beyond(network, layer)
            # few at a time: the libraries keep what every module takes and gives
            parts = zip(*(tensor.split(FEW) for tensor in (x, target, images)), strict=True)
            weights = torch.cat([relevance(rest, *part).flatten(2).sum(2) for part in parts])
            maps[layer] = F.relu(torch.einsum("nk,nk...->n...", weights, x))
        return maps

    return explain
