"""ROAD: what is removed is filled in from its surroundings, so that the cut itself tells nothing.

Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods", ICML 2022.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from naflow_fx.evaluation.faithfulness import Probability, ranks
from naflow_fx.evaluation.localisation import at_size

STEPS, NOISE = 40, 0.01
KERNEL = torch.tensor([[1.0, 2, 1], [2, 0, 2], [1, 2, 1]]) / 12


def road(
    probability: Probability,
    images: Tensor,
    target: Tensor,
    maps: Tensor,
    percentiles: tuple[int, ...] = (20, 50, 80),
    noise: float = NOISE,
    batch: int = 64,
) -> Tensor:
    """Probability without the least relevant pixels minus without the most relevant, over 2, [N].

    Mean over the percentages of removed pixels; pytorch-grad-cam's "ROADCombined", whose
    percentiles count what is kept.
    """
    rank = ranks(at_size(maps, tuple(images.shape[2:])))
    scores = torch.zeros(len(images), dtype=images.dtype, device=images.device)
    for percent in percentiles:
        for sign, gone in ((-1, rank < percent / 100), (1, rank >= 1 - percent / 100)):
            filled = impute(images, gone, noise)
            with torch.no_grad():
                given = torch.cat([probability(x) for x in torch.split(filled, batch)])
            scores += sign * given.gather(1, target[:, None])[:, 0] / (2 * len(percentiles))
    return scores


def impute(
    images: Tensor, gone: Tensor, noise: float = NOISE, steps: int = STEPS, seed: int = 0
) -> Tensor:
    """Images [N, C, H, W] whose pixels `gone`, bool [N, H, W], are what their neighbours say.

    Each such pixel is the weighted mean of its eight neighbours (4 straight ones 1/6, 4 diagonal
    ones 1/12, of those inside the image), which are solved for together, plus a little noise.

    Args:
        images: the photos.
        gone: what is removed.
        noise: standard deviation, in units of the images.
        steps: of conjugate gradients, from a start that is right at coarse scales.
        seed: of the noise.
    """
    known = ~gone[:, None]
    unknown = gone[:, None].to(images)
    x = torch.where(known, images, pyramid(images, known.to(images)))
    weights = _neighbours(torch.ones_like(unknown))  # less than 1 at the border

    def normal(v: Tensor) -> Tensor:
        return unknown * (weights * v - _neighbours(v))

    v = unknown * x
    residual = unknown * _neighbours(torch.where(known, images, 0.0)) - normal(v)
    direction, size = residual, _dot(residual, residual)
    for _ in range(steps):
        image = normal(direction)
        length = size / _dot(direction, image).clamp_min(1e-30)
        v = v + length * direction
        residual = residual - length * image
        smaller = _dot(residual, residual)
        direction, size = residual + smaller / size.clamp_min(1e-30) * direction, smaller
    generator = torch.Generator().manual_seed(seed)
    speckle = noise * torch.randn(images.shape[1:], generator=generator).to(images)
    return torch.where(known, images, v + speckle)


def pyramid(images: Tensor, known: Tensor) -> Tensor:
    """Known values spread over the gaps from coarse to fine: a start for `impute`."""
    height, width = images.shape[-2:]
    if known.all() or min(height, width) < 2:
        return images
    half = (height // 2, width // 2)
    share = F.adaptive_avg_pool2d(known, half)
    mean = F.adaptive_avg_pool2d(images * known, half) / torch.where(share > 0, share, 1.0)
    coarse = torch.where(share > 0, mean, pyramid(mean, (share > 0).to(images)))
    return F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)


def _neighbours(x: Tensor) -> Tensor:
    """The weighted sum of each pixel's eight neighbours; outside of the image is 0."""
    flat = x.reshape(-1, 1, *x.shape[-2:])
    return F.conv2d(flat, KERNEL.to(x)[None, None], padding=1).reshape(x.shape)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of each image's channels, [N, C, 1, 1]."""
    return (a * b).sum((-2, -1), keepdim=True)
