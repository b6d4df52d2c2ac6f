"""Linear maps that act on each space axis alone: y = (P_1 x P_2 x ...) x, as small matrices.

Average pools (any size, padding, ceil mode, adaptive), paddings and interpolations are such
maps; their pseudo-inverse is the product of the pseudo-inverses of the axes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Matrices = tuple[Tensor, ...]


def axis_matrix(
    operator: Callable[..., Tensor], size: int, *options: Any, like: Tensor | None = None
) -> Tensor:
    """The matrix [out, in] of `operator(x, *options)` on x [1, C, size].

    In the dtype and on the device of `like`; without it float64 on the CPU, for a constant.
    """
    identity = torch.eye(size, dtype=torch.float64) if like is None else (
        torch.eye(size, dtype=like.dtype, device=like.device))  # fmt: skip
    return operator(identity.unsqueeze(0), *options).squeeze(0).T.contiguous()


def linear(v: Tensor, matrices: Matrices) -> Tensor:
    """A v = (P_1 x ... x P_d) v over the last d dimensions of v [N, C, ...]."""
    for axis, matrix in zip(range(-len(matrices), 0), matrices, strict=True):
        moved = v.movedim(axis, -1) @ matrix.to(v).T
        v = moved.movedim(-1, axis)
    return v


def transpose(w: Tensor, matrices: Matrices) -> Tensor:
    """A^T w = (P_1 x ... x P_d)^T w."""
    return linear(w, tuple(matrix.T for matrix in matrices))


def inverse(z: Tensor, inverses: Matrices) -> Tensor:
    """A^+ z = (P_1^+ x ... x P_d^+) z, undamped least squares."""
    return linear(z, inverses)


def pseudo_inverses(matrices: Sequence[Tensor]) -> Matrices:
    """P_k^+ of every axis, float64."""
    return tuple(torch.linalg.pinv(matrix) for matrix in matrices)
