"""Permutation of dimensions: y = x with its dimensions in another order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from naflow_fx.rules._rearrangement import rearrangement
from naflow_fx.rules._spellings import spellings
from naflow_fx.rules.contract import Arguments, Labels


def forward(input: Tensor, dims: tuple[int, ...]) -> Tensor:
    """x permuted; two dimensions: these two swapped."""
    return input.permute(_order(input.dim(), dims))


def back(w: Tensor, dims: tuple[int, ...]) -> Tensor:
    """w permuted back."""
    order = _order(w.dim(), dims)
    return w.permute([order.index(d) for d in range(w.dim())])


def labels(labels: Labels, dims: tuple[int, ...]) -> Labels:
    """The letters, permuted."""
    return tuple(labels[d] for d in _order(len(labels), dims))


def _order(rank: int, dims: tuple[int, ...]) -> list[int]:
    dims = tuple(d % rank for d in dims)
    if len(dims) == rank and len(set(dims)) == rank and rank > 2:
        return list(dims)
    order = list(range(rank))
    order[dims[0]], order[dims[1]] = order[dims[1]], order[dims[0]]
    return order


def move(input: Tensor, source: tuple[int, ...], destination: tuple[int, ...]) -> Tensor:
    """x with dimensions moved to other places."""
    return input.movedim(source, destination)


def move_back(w: Tensor, source: tuple[int, ...], destination: tuple[int, ...]) -> Tensor:
    """w with dimensions moved back."""
    return w.movedim(destination, source)


def move_labels(labels: Labels, source: tuple[int, ...], destination: tuple[int, ...]) -> Labels:
    """The letters, moved."""
    places = torch.empty([d + 1 for d in range(len(labels))], device="meta")
    return tuple(labels[size - 1] for size in move(places, source, destination).shape)


def adapt_permute(input: Any, *dims: Any) -> Arguments:
    """permute's arguments."""
    order = tuple(dims[0]) if len(dims) == 1 and not isinstance(dims[0], int) else tuple(dims)
    if len(order) == 2:  # of a matrix: (0, 1) changes nothing, (1, 0) swaps
        order = (0, 0) if order[0] % 2 == 0 else (0, 1)
    return {"input": input, "dims": order}


def adapt_transpose(input: Any, dim0: int, dim1: int) -> Arguments:
    """transpose's arguments."""
    return {"input": input, "dims": (dim0, dim1)}


def adapt_matrix(input: Any) -> Arguments:
    """The arguments of .T, .mT and t: the last two dimensions swapped."""
    return {"input": input, "dims": (-2, -1)}


def adapt_move(input: Any, source: Any, destination: Any) -> Arguments:
    """movedim's arguments."""
    pairs = [(x,) if isinstance(x, int) else tuple(x) for x in (source, destination)]
    return {"input": input, "source": pairs[0], "destination": pairs[1]}


RULE = rearrangement(
    "permute",
    forward,
    back,
    labels=labels,
    view=True,
    mixes=lambda: "",
    targets={
        **spellings(adapt_permute, "permute"),
        **spellings(adapt_transpose, "transpose.int", "swapaxes", "swapdims"),
        **spellings(adapt_matrix, "t", "T", "mT", "adjoint", "numpy_T"),
    },
)
MOVE = rearrangement(
    "movedim",
    move,
    move_back,
    labels=move_labels,
    view=True,
    mixes=lambda: "",
    targets=spellings(adapt_move, "movedim.int", "movedim.intlist", "moveaxis"),
)
