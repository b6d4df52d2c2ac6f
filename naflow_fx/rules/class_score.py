"""Class score: y[n] = x[n, index[n]], the logit that is explained; -1 asks for the largest.

Of one number per sample, x [N] or [N, 1], it is that number, class 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from naflow_fx.rules._shapes import Ints
from naflow_fx.rules.contract import Labels, Rule, roles, same


def forward(input: Tensor, target: Tensor) -> Tensor:
    """The score [N] of class `target` [N] (int64, -1: the predicted), logits [N, K] or [N]."""
    return linear(input, capture(input, target))


def capture(input: Tensor, target: Tensor) -> Tensor:
    """index, int64 [N]: the class, with -1 replaced by the predicted one."""
    return torch.where(target < 0, _rows(input).argmax(1), target)


def linear(v: Tensor, index: Tensor) -> Tensor:
    """A v: v at the class."""
    return _rows(v).gather(1, index.unsqueeze(1)).squeeze(1)


def transpose(w: Tensor, index: Tensor, input_shape: Ints) -> Tensor:
    """A^T w: w at the class, 0 elsewhere."""
    classes = torch.arange(input_shape[1] if len(input_shape) > 1 else 1, device=w.device)
    spread = torch.where(classes == index.unsqueeze(1), w.unsqueeze(1), 0.0)
    return spread if len(input_shape) > 1 else spread.squeeze(1)


def _rows(x: Tensor) -> Tensor:
    """[N, K]."""
    return x.unsqueeze(1) if x.dim() == 1 else x


def labels(labels: Labels) -> Labels:
    """The batch dimension alone is left, [N]."""
    return labels[:1]


RULE = Rule(
    "class_score",
    **roles(forward, linear, transpose, capture, labels),
    inverse=transpose,
    captures=("index",),
    control=("target",),
    equation="Eq. 15",
    targets={forward: same(forward)},
)
