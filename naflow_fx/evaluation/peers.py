"""Other methods as explainers for `nf.evaluate`: callables of (images, target) that give maps.

Those that lead a score back by rules are in `propagation`.  Perturbation methods take hundreds of
forward passes an image.  A missing library is an `EvaluationError` that says what to install.
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.errors import EvaluationError, required
from naflow_fx.evaluation.data import Explain
from naflow_fx.evaluation.modules import modular, output_of, until


def library(name: str) -> Any:
    """A library of the extra "evaluate"; EvaluationError: it isn't there."""
    return required(name, extra="evaluate", what="this method", error=EvaluationError)


def gradient_channelwise(model: nn.Module, layers: Sequence[str]) -> Explain:
    """sum_d max(dy/dx_d x_d, 0) at each layer: gradient x activation, cut per channel.

    By autograd; names are those of `nf.compile`.
    """
    network = modular(model)
    extract = until(network, [*layers, output_of(network)])

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
    return _grad_cam(library("pytorch_grad_cam").ScoreCAM, model, layer)


def ablation_cam(model: nn.Module, layer: str) -> Explain:
    """Ablation-CAM at one module (Desai and Ramaswamy, WACV 2020), by pytorch-grad-cam."""
    return _grad_cam(library("pytorch_grad_cam").AblationCAM, model, layer)


def _grad_cam(kind: Any, model: nn.Module, layer: str) -> Explain:
    """A method of pytorch-grad-cam; its maps are as large as the input."""
    output_target = library("pytorch_grad_cam.utils.model_targets").ClassifierOutputTarget
    network = copy.deepcopy(model).eval()

    def explain(images: Tensor, target: Tensor) -> dict[str, Tensor]:
        bars = contextlib.redirect_stderr(io.StringIO())  # one an image
        with bars, kind(network, [network.get_submodule(layer)]) as cam:
            cam.batch_size = 32
            maps = cam(images, [output_target(int(t)) for t in target])
        return {layer: torch.from_numpy(maps)}

    return explain


def full_grad(model: nn.Module) -> Explain:
    """FullGrad (Srinivas and Fleuret, NeurIPS 2019), by pytorch-grad-cam.

    The sum of `|gradient x input|` and, of every layer with a bias, `|gradient x bias|`, each
    channel scaled to [0, 1] and to the input's size.  A batch norm's bias is what it adds in all;
    what a ReLU6 adds where it saturates is no module's bias, and is left out.
    """
    kind, network = library("pytorch_grad_cam").FullGrad, modular(model)
    output_target = library("pytorch_grad_cam.utils.model_targets").ClassifierOutputTarget

    def explain(images: Tensor, target: Tensor) -> Tensor:
        with torch.enable_grad(), kind(network, []) as cam:  # one image: it enlarges all channels
            maps = [cam(x[None], [output_target(int(t))])
                    for x, t in zip(images, target, strict=True)]  # fmt: skip
        return torch.from_numpy(np.concatenate(maps))

    return explain


def integrated_gradients(model: nn.Module, steps: int = 32) -> Explain:
    """`|sum over channels|` of integrated gradients from 0 (Sundararajan et al., 2017), captum."""
    method = library("captum.attr").IntegratedGradients(copy.deepcopy(model).eval())

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
    network = copy.deepcopy(model).eval()

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
