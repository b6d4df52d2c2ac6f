"""Permutation of dimensions: y = x with its dimensions in another order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from naflow_fx.rules.contract import Arguments, Labels, Rule


def forward(input: Tensor, dims: tuple[int, ...]) -> Tensor:
    """x permuted; two dimensions: these two swapped."""
    return input.permute(_order(input.dim(), dims))


def linear(v: Tensor, dims: tuple[int, ...]) -> Tensor:
    """A v: v permuted."""
    return forward(v, dims)


def transpose(w: Tensor, dims: tuple[int, ...]) -> Tensor:
    """A^T w: w permuted back."""
    order = _order(w.dim(), dims)
    return w.permute([order.index(d) for d in range(w.dim())])


def inverse(z: Tensor, dims: tuple[int, ...]) -> Tensor:
    """z permuted back."""
    return transpose(z, dims)


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


def move_linear(v: Tensor, source: tuple[int, ...], destination: tuple[int, ...]) -> Tensor:
    """A v: v with dimensions moved."""
    return v.movedim(source, destination)


def move_transpose(w: Tensor, source: tuple[int, ...], destination: tuple[int, ...]) -> Tensor:
    """A^T w: w with dimensions moved back."""
    return w.movedim(destination, source)


def move_inverse(z: Tensor, source: tuple[int, ...], destination: tuple[int, ...]) -> Tensor:
    """z with dimensions moved back."""
    return z.movedim(destination, source)


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


_aten = torch.ops.aten
RULE = Rule(
    "permute",
    forward,
    linear,
    transpose,
    inverse,
    labels=labels,
    gating="carries",
    view=True,
    mixes=lambda: "",
    equation="exact",
    targets=dict.fromkeys((torch.permute, "permute", _aten.permute.default), adapt_permute)
    | dict.fromkeys(
        (
            torch.transpose,
            torch.swapaxes,
            torch.swapdims,
            "transpose",
            "swapaxes",
            "swapdims",
            _aten.transpose.int,
            _aten.swapaxes.default,
        ),
        adapt_transpose,
    )
    | dict.fromkeys(
        (
            torch.t,
            "t",
            "T",
            "mT",
            torch.adjoint,
            _aten.t.default,
            _aten.mT.default,
            _aten.numpy_T.default,
        ),
        adapt_matrix,
    ),
)
MOVE = Rule(
    "movedim",
    move,
    move_linear,
    move_transpose,
    move_inverse,
    labels=move_labels,
    gating="carries",
    view=True,
    mixes=lambda: "",
    equation="exact",
    targets=dict.fromkeys(
        (torch.movedim, torch.moveaxis, "movedim", "moveaxis", _aten.movedim.int,
         _aten.movedim.intlist),
        adapt_move,
    ),
)  # fmt: skip
