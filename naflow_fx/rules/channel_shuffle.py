"""Channel shuffle: y = x with its channels, in g groups, dealt out one group after the other."""

from __future__ import annotations

from torch import Tensor, nn

from naflow_fx.rules._rearrangement import rearrangement
from naflow_fx.rules._spellings import from_module, spellings
from naflow_fx.rules.contract import same


def forward(input: Tensor, groups: int) -> Tensor:
    """[N, (g k), ...] -> [N, (k g), ...]."""
    grouped = input.reshape(input.shape[0], groups, -1, *input.shape[2:])
    return grouped.transpose(1, 2).reshape(input.shape)


def back(w: Tensor, groups: int) -> Tensor:
    """w shuffled back."""
    return forward(w, w.shape[1] // groups)


RULE = rearrangement(
    "channel_shuffle",
    forward,
    back,
    targets=spellings(same(forward), "channel_shuffle"),
    modules={nn.ChannelShuffle: from_module(same(forward), "groups")},
)
