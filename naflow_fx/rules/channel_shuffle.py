"""Channel shuffle: y = x with its channels, in g groups, dealt out one group after the other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules.contract import Rule, same


def forward(input: Tensor, groups: int) -> Tensor:
    """[N, (g k), ...] -> [N, (k g), ...]."""
    grouped = input.reshape(input.shape[0], groups, -1, *input.shape[2:])
    return grouped.transpose(1, 2).reshape(input.shape)


def linear(v: Tensor, groups: int) -> Tensor:
    """A v: v shuffled."""
    return forward(v, groups)


def transpose(w: Tensor, groups: int) -> Tensor:
    """A^T w: w shuffled back."""
    return forward(w, w.shape[1] // groups)


def inverse(z: Tensor, groups: int) -> Tensor:
    """z shuffled back."""
    return transpose(z, groups)


RULE = Rule(
    "channel_shuffle",
    forward,
    linear,
    transpose,
    inverse,
    gating="carries",
    equation="exact",
    targets=dict.fromkeys(
        (F.channel_shuffle, torch.channel_shuffle, torch.ops.aten.channel_shuffle.default),
        same(forward),
    ),
    modules={nn.ChannelShuffle: lambda module: {"groups": module.groups}},
)
