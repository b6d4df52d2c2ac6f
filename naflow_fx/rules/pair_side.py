"""Pair side: the queries' or the supports' rows of a batch of pairs, [N (1 + shots), ...]."""

from __future__ import annotations

import torch
from torch import Tensor

from naflow_fx.rules.contract import Rule, roles, same


def forward(input: Tensor, support: bool = False, shots: int = 1) -> Tensor:
    """The first N rows, or the mean over `shots` of the other N x shots; [N, ...]."""
    count = input.shape[0] // (1 + shots)
    if not support:
        return input[:count]
    rest = input[count:]
    return rest if shots == 1 else rest.reshape(count, shots, *rest.shape[1:]).mean(1)


def transpose(w: Tensor, support: bool, shots: int) -> Tensor:
    """A^T w: w at the rows, shared evenly among shots, 0 at the other side's."""
    return _back(w / shots if support else w, support, shots)


def support(w: Tensor, support: bool, shots: int) -> Tensor:
    """P^T w: w at the rows, at every shot, 0 at the other side's."""
    return _back(w, support, shots)


def inverse(z: Tensor, support: bool, shots: int) -> Tensor:
    """A^+ z: z at the rows, whole at every shot, 0 at the other side's."""
    return _back(z, support, shots)


def _back(rows: Tensor, support: bool, shots: int) -> Tensor:
    each = rows.repeat_interleave(shots, 0) if shots > 1 else rows
    if support:
        return torch.cat((torch.zeros_like(rows), each))
    return torch.cat((rows, torch.zeros_like(each)))


RULE = Rule(
    "pair_side",
    **roles(forward, transpose, inverse, support),
    equation="exact",
    targets={forward: same(forward)},
)
