"""One piece of a split: y = x[start : stop] along a dimension; chunk, split, tensor_split."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from naflow_fx.rules import getitem
from naflow_fx.rules._shapes import full_shape
from naflow_fx.rules.contract import Arguments, Rule

KINDS: dict[str, Callable[..., Any]] = {
    "chunk": torch.chunk, "split": torch.split, "tensor_split": torch.tensor_split,
}  # fmt: skip
Sections = int | tuple[int, ...]


def forward(input: Tensor, kind: str, sections: Sections, dim: int, piece: int) -> Tensor:
    """Piece number `piece` of torch.chunk, torch.split or torch.tensor_split."""
    pieces = KINDS[kind](input, sections, dim=dim)
    result: Tensor = pieces[piece]
    return result


def linear(v: Tensor, kind: str, sections: Sections, dim: int, piece: int) -> Tensor:
    """A v: the piece of v."""
    return forward(v, kind, sections, dim, piece)


def transpose(
    w: Tensor,
    kind: str,
    sections: Sections,
    dim: int,
    piece: int,
    input_shape: tuple[int, ...],
) -> Tensor:
    """A^T w: w at its place, 0 elsewhere."""
    v = w.new_zeros(full_shape(input_shape, w))
    forward(v, kind, sections, dim, piece).copy_(w)
    return v


def inverse(
    z: Tensor,
    kind: str,
    sections: Sections,
    dim: int,
    piece: int,
    input_shape: tuple[int, ...],
) -> Tensor:
    """z at its place, 0 elsewhere."""
    return transpose(z, kind, sections, dim, piece, input_shape)


def adapt(kind: str) -> Callable[..., Arguments]:
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
    return getitem.forward, getitem.adapt_select(input, dim, piece)


_aten = torch.ops.aten


def mixes(dim: int, at: int, rank: int) -> str:
    """Whether images are joined or split."""
    return "images are joined or split along the batch" if dim % rank == at else ""


RULE = Rule(
    "split",
    forward,
    linear,
    transpose,
    inverse,
    gating="carries",
    mixes=mixes,
    equation="exact",
    targets={
        **dict.fromkeys((torch.chunk, "chunk", _aten.chunk.default), adapt("chunk")),
        **dict.fromkeys(
            (torch.split, "split", "split_with_sizes", torch.split_with_sizes,
             _aten.split.Tensor, _aten.split_with_sizes.default), adapt("split")),
        **dict.fromkeys(
            (torch.tensor_split, "tensor_split", _aten.tensor_split.sections,
             _aten.tensor_split.indices), adapt("tensor_split")),
        **dict.fromkeys((torch.unbind, "unbind", _aten.unbind.int), adapt_unbind),
    },
)  # fmt: skip
