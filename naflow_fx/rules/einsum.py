"""Einstein sum with at most one captured factor: y = einsum(equation, x, g)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from naflow_fx.rules._shapes import full_shape
from naflow_fx.rules._spellings import spellings
from naflow_fx.rules.contract import BATCH, MIXED, Arguments, Labels, Rule


def forward(input: Tensor, other: Tensor | None, terms: tuple[str, str, str]) -> Tensor:
    """The sum of x and g = `other`, with the letters `terms` of x, g and the result."""
    return _sum(terms[0], terms[1], terms[2], input, other)


def transpose(
    w: Tensor, other: Tensor | None, terms: tuple[str, str, str], input_shape: tuple[int, ...]
) -> Tensor:
    """A^T w: the same sum with the result and x in each other's place."""
    return _back(w, other, terms, full_shape(input_shape, w))


def vjp(
    w: Tensor,
    input: Tensor,
    other: Tensor | None,
    terms: tuple[str, str, str],
    input_shape: tuple[int, ...],
    active: tuple[int, ...] = (0, 1),
) -> tuple[Tensor, Tensor | None]:
    """The derivative by x and by g."""
    first = transpose(w, other, terms, input_shape)
    if other is None or 1 not in active:
        return first, None
    return first, _back(w, input, (terms[1], terms[0], terms[2]), tuple(other.shape))


def swap(arguments: Arguments) -> Arguments:
    """The same sum with the other factor captured."""
    a, b, out = arguments["terms"]
    return arguments | {
        "input": arguments["other"], "other": arguments["input"], "terms": (b, a, out),
    }  # fmt: skip


def labels(labels: Labels, terms: tuple[str, str, str], active: tuple[int, ...]) -> Labels:
    """Dimensions that stay keep their letter; those of two activations are mixed."""
    known = dict(zip(terms[0], labels[-len(terms[0]) :], strict=False))
    found = tuple(known.get(letter, MIXED) for letter in terms[2])
    if 1 in active:
        return tuple(label if label == BATCH else MIXED for label in found)
    return found


def _back(
    w: Tensor, other: Tensor | None, terms: tuple[str, str, str], shape: Sequence[int]
) -> Tensor:
    a, b, out = terms
    kept = "".join(letter for letter in a if letter in out or letter in b)
    found = _sum(out, b, kept, w, other)
    for dim, letter in enumerate(a):
        if letter not in kept:
            found = found.unsqueeze(dim)
    return found.expand(shape)


def _sum(a: str, b: str, out: str, x: Tensor, other: Tensor | None) -> Tensor:
    if other is None:
        return torch.einsum(f"{a}->{out}", x)
    return torch.einsum(f"{a},{b}->{out}", x, other)


def adapt(equation: str, *operands: Any, **options: Any) -> Arguments:
    """torch.einsum's arguments."""
    operands = tuple(operands[0]) if isinstance(operands[0], (tuple, list)) else operands
    equation = equation.replace(" ", "")
    sources, arrow, out = equation.partition("->")
    terms = sources.split(",")
    repeated = any(len(set(term)) < len(term) for term in (*terms, out))
    if not arrow or "." in equation or repeated or len(terms) > 2:
        raise ValueError(f"einsum {equation!r}: wanted at most two terms, '->', no '...'")
    second = operands[1] if len(operands) > 1 else None
    return {"input": operands[0], "other": second, "terms": (terms[0], "".join(terms[1:]), out)}


RULE = Rule(
    "einsum",
    forward,
    forward,
    transpose,
    vjp=vjp,
    operands=("input", "other"),
    control=("other",),
    swap=swap,
    labels=labels,
    equation="Eqs. 6-10, damped least squares",
    targets=spellings(adapt, "einsum"),
)
