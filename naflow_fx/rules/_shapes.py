"""Small helpers on shapes, shared by the rules; -1 stands for the batch dimension."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from naflow_fx.rules.contract import BATCH, CHANNEL, COLLAPSED, SPACE, Labels

Ints = tuple[int, ...]  # a shape, or a number for each space axis
Shapes = Sequence[Ints]  # of a variadic rule's inputs
Vectors = Sequence[Tensor | None]  # of its active inputs; None: zero, or unknown


def tuple_of(value: Any, rank: int) -> tuple[Any, ...]:
    """A number or a sequence, as torch's operators take it, -> one number per space axis."""
    values = ints(value)
    return values * rank if len(values) == 1 else values


def full_shape(shape: Sequence[int], like: Tensor) -> tuple[int, ...]:
    """The static shape with its batch dimension (-1) taken from `like`, whose batch leads."""
    return tuple(like.shape[0] if size == -1 else size for size in shape)


def as_activation(shift: Tensor | float, like: Tensor, shape: Sequence[int]) -> Tensor:
    """A constant c as a whole activation of the static `shape`; batch, dtype, device of `like`."""
    full = full_shape(shape, like)
    if not isinstance(shift, Tensor):
        return like.new_full(full, shift)
    return shift.to(like).expand(full)


def sum_to(w: Tensor, shape: Sequence[int]) -> Tensor:
    """The transpose of broadcasting: sums w over what was broadcast from `shape` (-1: batch)."""
    while w.dim() > len(shape):
        w = w.sum(0)
    dims = [d for d, size in enumerate(shape) if size == 1 and w.shape[d] != 1]
    return w.sum(dims, keepdim=True) if dims else w


def opened(x: Tensor, like: Tensor) -> Ints:
    """The shape of x with -1 for its batch, which it has where its rank is that of `like`."""
    return (-1 if x.dim() == like.dim() else 1, *x.shape[1:]) if x.dim() else ()


def per_channel(vector: Tensor, rank: int) -> Tensor:
    """[C] -> [1, C, 1, ...] for an activation of `rank` dimensions."""
    return vector.reshape(1, -1, *(1,) * (rank - 2))


def grown(labels: Labels, input_shape: Sequence[int], output_shape: Sequence[int]) -> Labels:
    """Labels of what was spread: collapsed dimensions that grew are space, or the channels."""
    labels = (COLLAPSED,) * (len(output_shape) - len(labels)) + tuple(labels)
    before = (1,) * (len(output_shape) - len(input_shape)) + tuple(input_shape)
    found = []
    for d, label in enumerate(labels):
        spread = label == COLLAPSED and before[d] == 1 and output_shape[d] != 1
        new = CHANNEL if d == 1 and CHANNEL not in labels else SPACE
        found.append(new if spread else label)
    return tuple(found)


def spatial(labels: Labels) -> Labels:
    """Batch, channels, and space in all other dimensions."""
    return (BATCH, CHANNEL, *(SPACE,) * (len(labels) - 2))


def ints(*values: Any) -> Ints:
    """One int, several, or a sequence of them, as torch's methods take them."""
    one = len(values) == 1 and not isinstance(values[0], int)
    return tuple(values[0] if one else values)


def has_constants(inputs: Sequence[Any], active: tuple[int, ...]) -> bool:
    """Whether an input of a variadic rule is a constant: then c is not 0."""
    return len(active) < len(inputs)


def has_bias(bias: Tensor | None) -> bool:
    """Whether c = b is not 0."""
    return bias is not None


def mixes_along(dim: int, at: int, rank: int) -> str:
    """Whether images are joined or split."""
    return "images are joined or split along the batch" if dim % rank == at else ""
