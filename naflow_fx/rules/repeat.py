"""Copies side by side: y = [x, x, ...] along dimensions (repeat, tile)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from naflow_fx.rules._shapes import grown
from naflow_fx.rules._spellings import spellings
from naflow_fx.rules.contract import Arguments, Rule


def forward(input: Tensor, repeats: tuple[int, ...], interleave: bool = False) -> Tensor:
    """x, `repeats[d]` times along dimension d; `interleave`: each entry's copies together."""
    if not interleave:
        return input.repeat(repeats)
    for dim, count in enumerate(repeats):
        input = input.repeat_interleave(count, dim) if count > 1 else input
    return input


def transpose(
    w: Tensor, repeats: tuple[int, ...], interleave: bool, input_shape: tuple[int, ...]
) -> Tensor:
    """A^T w: the sum over the copies."""
    sizes: list[int] = []
    copies = []
    repeats = repeats + (1,) * (len(input_shape) - len(repeats) if interleave else 0)
    shape = (1,) * (len(repeats) - len(input_shape)) + tuple(input_shape)
    for size, count in zip(shape, repeats, strict=True):
        size = w.shape[0] if size == -1 else size
        copies.append(len(sizes) + (1 if interleave else 0))
        sizes += [size, count] if interleave else [count, size]
    total = w.reshape(sizes).sum(copies)
    return total.reshape([w.shape[0] if size == -1 else size for size in input_shape])


def inverse(
    z: Tensor, repeats: tuple[int, ...], interleave: bool, input_shape: tuple[int, ...]
) -> Tensor:
    """A^+ z: the mean of the copies."""
    total = transpose(z, repeats, interleave, input_shape)
    return total / (z[0].numel() / total[0].numel())


def adapt(input: Any, *repeats: Any, **options: Any) -> Arguments:
    """repeat's or tile's arguments."""
    found = options.get("repeats", options.get("dims", repeats))
    counts = found[0] if len(found) == 1 and not isinstance(found[0], int) else found
    if counts and counts[0] != 1:
        raise ValueError(f"repeat{tuple(counts)}: copies along the batch dimension")
    return {"input": input, "repeats": tuple(counts)}


def adapt_interleave(input: Any, repeats: Any, dim: Any = None, **options: Any) -> Arguments:
    """repeat_interleave's arguments."""
    if not isinstance(repeats, int) or dim is None or dim < 1:
        raise ValueError("repeat_interleave: wanted one number and a dimension of 1 or more")
    counts = (1,) * dim + (repeats,)
    return {"input": input, "repeats": counts, "interleave": True}


RULE = Rule(
    "repeat",
    forward,
    forward,
    transpose,
    inverse,
    labels=grown,
    gating="carries",
    equation="least squares, exact",
    targets=spellings(adapt, "repeat", "tile")
    | spellings(adapt_interleave, "repeat_interleave.self_int"),
)
