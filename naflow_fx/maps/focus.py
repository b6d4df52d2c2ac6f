"""Gradient x activation where the last map looks: the focused map, ours and not the paper's.

    map_l = G_l * smooth( sum_d max(Lambda_d x_d, 0) )
    G_l = min(F_l / mean F_l, 1)^4

F_l is the feature node's map at the size of l; the mean is over its positions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from naflow_fx.solver.least_squares import solver_dtype

WIDTH = 56  # the smoothing's standard deviation is a side / WIDTH: half a pixel of a 28 x 28 map
POWER = 4  # how sharply positions below the mean are abandoned
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def focused(importance: Tensor, x: Tensor, focus: Sequence[Tensor], channel: int) -> Tensor:
    """The map of a call site, [N, ...space], not negative.

    importance, x: Lambda and the forward activation, in the node's own layout; focus: the maps
    of the feature nodes, [N, ...] (several: the largest share counts; none: all is kept).
    """
    found = smooth(focus_map(importance, x, channel))
    if focus:
        shares = [share(at_size(f, found.shape[1:])) for f in focus]
        found = found * torch.stack(shares).amax(0)
    return found.to(x.dtype)


def focus_map(importance: Tensor, x: Tensor, channel: int) -> Tensor:
    """sum_d max(Lambda_d x_d, 0), [N, ...space], at least in float32."""
    dtype = solver_dtype(x.dtype)
    return torch.relu(importance.to(dtype) * x.to(dtype)).sum(channel)


def share(focus: Tensor) -> Tensor:
    """min(F / mean F, 1)^POWER, in [0, 1]; 1 where F is 0 everywhere: nothing is known."""
    mean = focus.mean(tuple(range(1, focus.dim())), keepdim=True)
    known = mean > 0
    return torch.where(known, focus / torch.where(known, mean, 1.0), 1.0).clamp(max=1) ** POWER


def smooth(maps: Tensor) -> Tensor:
    """A Gaussian of a side / WIDTH along each axis; weights add up to 1 at the border, too."""
    for axis in range(1, maps.dim()):
        size = maps.shape[axis]
        place = torch.arange(size, device=maps.device, dtype=maps.dtype)
        distance = (place[:, None] - place) * (WIDTH / size)
        weight = torch.softmax(-0.5 * distance * distance, 1)
        maps = (maps.movedim(axis, -1) @ weight.T).movedim(-1, axis)
    return maps


def at_size(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps [N, ...] at another size, [N, *size]: linear, or means where an axis shrinks."""
    if tuple(maps.shape[1:]) == tuple(size):
        return maps
    shrinks = any(new < old for new, old in zip(size, maps.shape[1:], strict=True))
    if shrinks:
        return F.interpolate(maps[:, None], tuple(size), mode="area")[:, 0]
    return resized(maps, size)


def resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps [N, ...] of one to three axes at another size, [N, *size], linear."""
    mode = LINEAR[len(size)]
    return F.interpolate(maps[:, None], tuple(size), mode=mode, align_corners=False)[:, 0]
