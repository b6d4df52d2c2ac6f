"""Indexing: y = x[index], with numbers, slices and None; select, narrow, chunk, split."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor

from naflow_fx.rules._shapes import Ints, full_shape, mixes_along
from naflow_fx.rules._spellings import spellings
from naflow_fx.rules.contract import Arguments, Function, Labels, Rule, roles


def forward(input: Tensor, index: Any) -> Tensor:
    """x[index]."""
    return input[index]


def transpose(w: Tensor, input: Tensor, index: Any) -> Tensor:
    """A^T w: w at the index, added up where the index repeats, 0 elsewhere."""
    v = w.new_zeros(input.shape)
    if not _has_list(index):
        v[index] = w
        return v
    places = torch.arange(v.numel(), device=v.device).reshape(v.shape)[index]
    return v.flatten().index_add(0, places.flatten(), w.flatten()).reshape(v.shape)


def inverse(z: Tensor, input: Tensor, index: Any) -> Tensor:
    """z at the index, the mean where the index repeats; what was not read is abandoned."""
    found = transpose(z, input, index)
    if not _has_list(index):
        return found
    return found / transpose(torch.ones_like(z), input, index).clamp(min=1)


def _has_list(index: Any) -> bool:
    items = index if isinstance(index, tuple) else (index,)
    return any(isinstance(item, (list, Tensor)) for item in items)


def labels(labels: Labels, index: Any) -> Labels:
    """The letters of the dimensions that are left."""
    found, letters = [], iter(labels)
    for item in _items(index, len(labels)):
        letter = "1" if item is None else next(letters)
        if not isinstance(item, int):
            found.append(letter)
    return tuple(found)


def _items(index: Any, rank: int) -> list[Any]:
    """What an index takes of each dimension; None: of a new one."""
    items = list(index) if isinstance(index, tuple) else [index]
    used = sum(item is not None and item is not ... for item in items)
    at = next((i for i, item in enumerate(items) if item is ...), len(items))
    items[at : at + 1] = [slice(None)] * (rank - used)
    return items


def along(input: Any, dim: int, index: Any) -> Arguments:
    """select's arguments: what `index` takes along one dimension, counted from either end."""
    whole = (slice(None),) * (-dim - 1 if dim < 0 else dim)
    return {"input": input, "index": (..., index, *whole) if dim < 0 else (*whole, index)}


def adapt_narrow(input: Any, dim: int, start: int, length: int) -> Arguments:
    """narrow's arguments."""
    return along(input, dim, slice(start, start + length or None))


def adapt_slice(
    input: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Arguments:
    """aten.slice's arguments."""
    return along(input, dim, slice(start, end, step))


def adapt_index_select(input: Any, dim: int, index: Any) -> Arguments:
    """index_select's arguments, with constant indices."""
    if not isinstance(index, Tensor):
        raise ValueError("index_select with indices that were computed from the input")
    return along(input, dim, index.reshape(-1).tolist())


def mixes(index: Any, at: int, rank: int) -> str:
    """Whether images are picked out of the batch."""
    taken = [item for item in _items(index, rank) if item is not None][at]
    end = 2**31 - 1  # of any batch: torch.export writes numbers from this on
    whole = isinstance(taken, slice) and taken.indices(end) == (0, end, 1)
    return "" if whole else "images are picked out of the batch"


RULE = Rule(
    "getitem",
    **roles(forward, transpose, inverse, labels, mixes),
    gating="carries",
    view=True,
    equation="exact",
    targets={
        operator.getitem: lambda input, index: {"input": input, "index": index},
        **spellings(along, "select.int"),
        **spellings(adapt_narrow, "narrow"),
        **spellings(adapt_index_select, "index_select"),
        torch.ops.aten.slice.Tensor: adapt_slice,
    },
)

Sections = int | Ints


def split(input: Tensor, kind: str, sections: Sections, dim: int, piece: int) -> Tensor:
    """Piece number `piece` of torch.chunk, torch.split or torch.tensor_split."""
    result: Tensor = getattr(torch, kind)(input, sections, dim=dim)[piece]
    return result


def split_transpose(
    w: Tensor, kind: str, sections: Sections, dim: int, piece: int, input_shape: Ints
) -> Tensor:
    """A^T w: w at its place, 0 elsewhere."""
    v = w.new_zeros(full_shape(input_shape, w))
    split(v, kind, sections, dim, piece).copy_(w)
    return v


def adapt_split(kind: str) -> Function:
    """The adapter for a way of splitting."""

    def arguments(
        input: Any, sections: Any = None, dim: int = 0, *, piece: int, **options: Any
    ) -> Arguments:
        for name in ("chunks", "split_size_or_sections", "split_size", "indices_or_sections"):
            sections = options.get(name, sections)
        sections = sections if isinstance(sections, int) else tuple(sections)
        return {"input": input, "kind": kind, "sections": sections, "dim": dim, "piece": piece}

    return arguments


def adapt_unbind(input: Any, dim: int = 0, *, piece: int) -> Any:
    """unbind's arguments: a piece of it is a selection."""
    return forward, along(input, dim, piece)


SPLIT = Rule(
    "split",
    **roles(split, split_transpose),
    inverse=split_transpose,
    gating="carries",
    mixes=mixes_along,
    equation="exact",
    targets={
        **spellings(adapt_split("chunk"), "chunk"),
        **spellings(adapt_split("split"), "split.Tensor", "split_with_sizes"),
        **spellings(adapt_split("tensor_split"), "tensor_split.sections", "tensor_split.indices"),
        **spellings(adapt_unbind, "unbind.int"),
    },
)
