"""Reshape: the same numbers in another shape; flatten, view, squeeze, unsqueeze."""

from __future__ import annotations

import math

from torch import Tensor, nn

from naflow_fx.rules._shapes import Ints
from naflow_fx.rules._spellings import first, from_module, spellings
from naflow_fx.rules.contract import TOKENS, Labels
from naflow_fx.rules.rearrangements import rearrangement


def forward(input: Tensor, output_shape: Ints) -> Tensor:
    """x in `output_shape`, -1 at the batch dimension."""
    return input.reshape(output_shape)


def back(w: Tensor, input_shape: Ints) -> Tensor:
    """w in the input's shape."""
    return w.reshape(input_shape)


def labels(labels: Labels, input_shape: Ints, output_shape: Ints) -> Labels:
    """Dimensions that stay keep their letter; split and merged ones are tracked."""
    found: list[str] = []
    for before, after in groups(input_shape, output_shape):
        letters = [labels[d] for d in before if input_shape[d] != 1 or len(before) == 1]
        found += _relabel(letters, [output_shape[d] for d in after])
    return _rejoin(tuple(found), labels)


def groups(before: Ints, after: Ints) -> list[tuple[list[int], list[int]]]:
    """Runs of dimensions of both shapes that hold the same numbers; -1 matches -1."""
    found = []
    i = j = 0
    while i < len(before) or j < len(after):
        left, right = [i] if i < len(before) else [], [j] if j < len(after) else []
        while _size(before, left) != _size(after, right):
            if _size(before, left) < _size(after, right) and left and left[-1] + 1 < len(before):
                left.append(left[-1] + 1)
            elif right and right[-1] + 1 < len(after):
                right.append(right[-1] + 1)
            else:
                left, right = list(range(i, len(before))), list(range(j, len(after)))
                break
        found.append((left, right))
        i, j = i + len(left), j + len(right)
    return found


def _size(shape: Ints, dims: list[int]) -> int:
    big = 1 << 40  # the batch: larger than any product of the others
    return math.prod(big if shape[d] == -1 else shape[d] for d in dims)


def _relabel(letters: list[str], sizes: list[int]) -> list[str]:
    """The letters of the output dimensions that one run of input dimensions became."""
    if not letters:
        return ["1"] * len(sizes)
    if len(sizes) == 1:
        kinds = set(letters) - {"1"} or {"1"}
        if kinds == {"C", "c"}:  # a stacked dimension and the channels
            return ["C"]
        merged = kinds.pop() if len(letters) == 1 or len(kinds) == 1 else "?"
        kept = len(letters) == 1 or merged in "cs1"
        return [merged if kept else TOKENS if merged == "S" else "?"]
    real = [d for d, size in enumerate(sizes) if size != 1]
    if len(letters) == 1 and len(real) <= 1:
        keep = real[0] if real else 0
        return [letters[0] if d == keep else "1" for d in range(len(sizes))]
    parts = {"C": "c", "c": "c", "S": "s", "s": "s", TOKENS: "s"}
    part = parts.get(letters[0], "?") if len(set(letters)) == 1 else "?"
    return [part if size != 1 else "1" for size in sizes]


def _rejoin(found: Labels, before: Labels) -> Labels:
    """Channel parts that were all merged back are the channels again."""
    if found.count("c") == 1 and before.count("c") > 1:
        return tuple("C" if label == "c" else label for label in found)
    return found


RULE = rearrangement(
    "reshape",
    forward,
    back,
    labels=labels,
    view=True,
    regroups=True,
    targets=spellings(
        first, "flatten.using_ints", "reshape", "view", "squeeze", "squeeze.dim", "squeeze.dims",
        "unsqueeze", "unflatten.int", "view_as", "reshape_as", "_unsafe_view",
    ),
    modules=dict.fromkeys((nn.Flatten, nn.Unflatten), from_module(first)),
)  # fmt: skip
