"""The same numbers in other places: A^+ = A^T, f itself is A.  Reshapes: `reshape.py`."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules._shapes import Ints, ints
from naflow_fx.rules._spellings import called, spellings
from naflow_fx.rules.contract import Arguments, Function, Labels, Rule, same


def rearrangement(
    name: str, forward: Function, back: Function, *modules: type, **others: Any
) -> Rule:
    """The rule of y = f(x) with ``back`` as f^-1: every number of x is once in y."""
    fields = called(forward, name, *modules) | others
    return Rule(name, forward, forward, back, back, gating="carries", equation="exact", **fields)


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """[N, (g k), ...] -> [N, (k g), ...]: the channels dealt out one group after the other."""
    grouped = input.reshape(input.shape[0], groups, -1, *input.shape[2:])
    return grouped.transpose(1, 2).reshape(input.shape)


def channel_shuffle_back(w: Tensor, groups: int) -> Tensor:
    """w shuffled back."""
    return channel_shuffle(w, w.shape[1] // groups)


CHANNEL_SHUFFLE = rearrangement(
    "channel_shuffle", channel_shuffle, channel_shuffle_back, nn.ChannelShuffle
)


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """[N, C r^2, H, W] -> [N, C, r H, r W]."""
    return F.pixel_shuffle(input, upscale_factor)


def pixel_shuffle_back(w: Tensor, upscale_factor: int) -> Tensor:
    """w shuffled back."""
    return F.pixel_unshuffle(w, upscale_factor)


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """[N, C, r H, r W] -> [N, C r^2, H, W]."""
    return F.pixel_unshuffle(input, downscale_factor)


def pixel_unshuffle_back(w: Tensor, downscale_factor: int) -> Tensor:
    """w put back."""
    return F.pixel_shuffle(w, downscale_factor)


PIXEL_SHUFFLE = rearrangement("pixel_shuffle", pixel_shuffle, pixel_shuffle_back, nn.PixelShuffle)
PIXEL_UNSHUFFLE = rearrangement(
    "pixel_unshuffle", pixel_unshuffle, pixel_unshuffle_back, nn.PixelUnshuffle
)


def permute(input: Tensor, dims: Ints) -> Tensor:
    """x with its dimensions in another order; two dimensions: these two swapped."""
    return input.permute(_order(input.dim(), dims))


def permute_back(w: Tensor, dims: Ints) -> Tensor:
    """w permuted back."""
    order = _order(w.dim(), dims)
    return w.permute([order.index(d) for d in range(w.dim())])


def permute_labels(labels: Labels, dims: Ints) -> Labels:
    """The letters, permuted."""
    return tuple(labels[d] for d in _order(len(labels), dims))


def _order(rank: int, dims: Ints) -> list[int]:
    dims = tuple(d % rank for d in dims)
    if len(dims) == rank and len(set(dims)) == rank and rank > 2:
        return list(dims)
    order = list(range(rank))
    order[dims[0]], order[dims[1]] = order[dims[1]], order[dims[0]]
    return order


def along(input: Any, *dims: Any, **named: Any) -> Arguments:
    """The arguments of a call with dimensions: one by one or a sequence, by place or by name."""
    return {"input": input, "dims": ints(*dims, *named.values())}


def adapt_permute(input: Any, *dims: Any, **named: Any) -> Arguments:
    """permute's arguments."""
    order = ints(*dims, *named.values())
    if len(order) == 2:  # of a matrix: (0, 1) changes nothing, (1, 0) swaps
        order = (0, 0) if order[0] % 2 == 0 else (0, 1)
    return {"input": input, "dims": order}


PERMUTE = rearrangement(
    "permute",
    permute,
    permute_back,
    labels=permute_labels,
    view=True,
    mixes=lambda: "",
    targets={
        **spellings(adapt_permute, "permute"),
        **spellings(along, "transpose.int", "swapaxes", "swapdims"),
        **spellings(same(permute, dims=(-2, -1)), "t", "T", "mT", "adjoint", "numpy_T"),
    },
)


def movedim(input: Tensor, source: Ints, destination: Ints) -> Tensor:
    """x with dimensions moved to other places."""
    return input.movedim(source, destination)


def movedim_back(w: Tensor, source: Ints, destination: Ints) -> Tensor:
    """w with dimensions moved back."""
    return w.movedim(destination, source)


def movedim_labels(labels: Labels, source: Ints, destination: Ints) -> Labels:
    """The letters, moved."""
    places = torch.empty([d + 1 for d in range(len(labels))], device="meta")
    return tuple(labels[size - 1] for size in movedim(places, source, destination).shape)


def adapt_movedim(input: Any, source: Any, destination: Any) -> Arguments:
    """movedim's arguments."""
    return {"input": input, "source": ints(source), "destination": ints(destination)}


MOVEDIM = rearrangement(
    "movedim",
    movedim,
    movedim_back,
    labels=movedim_labels,
    view=True,
    mixes=lambda: "",
    targets=spellings(adapt_movedim, "movedim.int", "movedim.intlist", "moveaxis"),
)


def roll(input: Tensor, shifts: Ints, dims: Ints) -> Tensor:
    """torch.roll."""
    return torch.roll(input, shifts, dims)


def roll_back(w: Tensor, shifts: Ints, dims: Ints) -> Tensor:
    """w rolled back."""
    return torch.roll(w, tuple(-s for s in shifts), dims)


def flip(input: Tensor, dims: Ints) -> Tensor:
    """torch.flip, which undoes itself."""
    return torch.flip(input, dims)


def adapt_roll(input: Any, shifts: Any, dims: Any = ()) -> Arguments:
    """roll's arguments."""
    given = () if dims is None else ints(dims)
    if not given:
        raise ValueError("rolling over the batch dimension mixes images")
    return {"input": input, "shifts": ints(shifts), "dims": given}


ROLL = rearrangement("roll", roll, roll_back, targets=spellings(adapt_roll, "roll"))
FLIP = rearrangement("flip", flip, flip, targets=spellings(along, "flip"))
