"""Attention maps from importance and feature maps: Eq. 2, and the gradient methods.

``importance`` is Lambda = d score / d x, ``x`` the feature map (Z for NAFlow, the forward
activation for the others), both in a node's own layout; `channel` is its channel dimension and
`space` its space dimensions.  All return max(., 0) of a sum over channels, [N, ...space].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Map = Callable[[Tensor, Tensor, int, tuple[int, ...]], Tensor]


def naflow_sum(importance: Tensor, x: Tensor, channel: int, space: tuple[int, ...]) -> Tensor:
    """max(sum_d Lambda_d Z_d, 0): Eq. 2.  With the forward activation: HiResCAM."""
    return torch.relu((importance * x).sum(channel))


def naflow_channelwise(
    importance: Tensor, x: Tensor, channel: int, space: tuple[int, ...]
) -> Tensor:
    """sum_d max(Lambda_d Z_d, 0)."""
    return torch.relu(importance * x).sum(channel)


def finite(x: Tensor) -> Tensor:
    """x with 0 where it is infinite: the border that a max pool never picks."""
    return torch.where(x.isinf(), 0.0, x)


def of_used(z: Tensor, used: Tensor) -> Tensor:
    """z of the neurons that take part, 0 of the abandoned ones; `used` holds 0 and 1."""
    return z * used.to(z.dtype)


def gradcam(importance: Tensor, x: Tensor, channel: int, space: tuple[int, ...]) -> Tensor:
    """max(sum_d w_d x_d, 0), w = mean over space of Lambda (Selvaraju et al., ICCV 2017)."""
    weight = importance.mean(space, keepdim=True)
    return torch.relu((weight * x).sum(channel))


def hirescam(importance: Tensor, x: Tensor, channel: int, space: tuple[int, ...]) -> Tensor:
    """max(sum_d Lambda_d x_d, 0) (Draelos and Carin, arXiv 2011.08891)."""
    return naflow_sum(importance, x, channel, space)


def layercam(importance: Tensor, x: Tensor, channel: int, space: tuple[int, ...]) -> Tensor:
    """max(sum_d max(Lambda_d, 0) x_d, 0) (Jiang et al., TIP 2021)."""
    return torch.relu((torch.relu(importance) * x).sum(channel))


def gradcam_plus_plus(
    importance: Tensor, x: Tensor, channel: int, space: tuple[int, ...]
) -> Tensor:
    """w_d = sum over space of a max(Lambda, 0), a = L^2 / (2 L^2 + sum(x) L^3).

    Chattopadhay et al., WACV 2018, Eqs. 11 and 19, for a score through an exponential; a = 0
    where its divisor is 0.
    """
    square = importance * importance
    bottom = 2 * square + x.sum(space, keepdim=True) * square * importance
    a = torch.where(bottom != 0, square / torch.where(bottom != 0, bottom, 1.0), 0.0)
    weight = (a * torch.relu(importance)).sum(space, keepdim=True)
    return torch.relu((weight * x).sum(channel))


def xgradcam(importance: Tensor, x: Tensor, channel: int, space: tuple[int, ...]) -> Tensor:
    """w_d = sum over space of Lambda x / sum x (Fu et al., BMVC 2020); 0 where sum x is 0."""
    total = x.sum(space, keepdim=True)
    alive = total != 0
    weight = (importance * x).sum(space, keepdim=True) / torch.where(alive, total, 1.0)
    return torch.relu((torch.where(alive, weight, 0.0) * x).sum(channel))


METHODS: dict[str, Map] = {
    "gradcam": gradcam,
    "hirescam": hirescam,
    "layercam": layercam,
    "gradcam++": gradcam_plus_plus,
    "xgradcam": xgradcam,
}
REDUCTIONS: dict[str, Map] = {"sum": naflow_sum, "channelwise": naflow_channelwise}


def is_known(score: Tensor, images_per_sample: int) -> Tensor:
    """Whether each sample's score [N] is finite; each image's, where a sample has several.

    There are N query images, then the supports of each, one less than `images_per_sample`.
    """
    known = score.isfinite()
    if images_per_sample > 1:
        known = torch.cat((known, known.repeat_interleave(images_per_sample - 1)))
    return known


def where_known(x: Tensor, known: Tensor, norm_ratio: Tensor | None) -> Tensor:
    """A map [N, ...], NaN in rows that nothing is known of: a map of zeros is a result.

    Those are rows that aren't `known`, bool [N], or whose norm ratio at the map's site is NaN:
    there squares of the activation or of Z overflow.  The map may have several rows of each (frames
    in the batch), and norm ratios then.
    """
    each = x.reshape(known.shape[0], -1, *x.shape[1:])
    fine = known.reshape(-1, *(1,) * (each.dim() - 1))
    if norm_ratio is not None:
        fine = fine & ~norm_ratio.isnan().reshape(each.shape[0], -1, *(1,) * (each.dim() - 2))
    return torch.where(fine, each, torch.nan).reshape(x.shape)


def zero_like(x: Tensor) -> Tensor:
    """0 per sample, [N]."""
    return x.new_zeros(x.shape[0])


def one_like(x: Tensor) -> Tensor:
    """1 per sample, [N]."""
    return x.new_ones(x.shape[0])
