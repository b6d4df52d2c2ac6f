"""One piece of a split: y = x[start : stop] along a dimension; chunk, split, tensor_split."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from naflow_fx.rules import getitem
from naflow_fx.rules._shapes import full_shape
from naflow_fx.rules._spellings import spellings
from naflow_fx.rules.cat import mixes
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


RULE = Rule(
    "split",
    forward,
    forward,
    transpose,
    transpose,
    gating="carries",
    mixes=mixes,
    equation="exact",
    targets={
        **spellings(adapt("chunk"), "chunk"),
        **spellings(adapt("split"), "split.Tensor", "split_with_sizes"),
        **spellings(adapt("tensor_split"), "tensor_split.sections", "tensor_split.indices"),
        **spellings(adapt_unbind, "unbind.int"),
    },
)
