"""Matrix products: fully connected layers, x G and G x, Einstein sums; G a constant or captured."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules._shapes import Ints, full_shape, has_bias, opened, sum_to
from naflow_fx.rules._spellings import called, spellings
from naflow_fx.rules.contract import BATCH, CHANNEL, MIXED, Arguments, Labels, Rule, roles


def dense(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A fully connected layer: x [..., in] times `weight` [out, in], plus `bias` [out]."""
    return F.linear(input, weight, bias)


def linear(v: Tensor, weight: Tensor) -> Tensor:
    """A v = W v."""
    return F.linear(v, weight)


def transpose(w: Tensor, weight: Tensor) -> Tensor:
    """A^T w = W^T w."""
    return F.linear(w, weight.T)


def shift(bias: Tensor | None) -> Tensor | None:
    """c = b, [out]."""
    return bias


def labels(labels: Labels) -> Labels:
    """The last dimension is a channel again when what was mixed into it was flattened."""
    return (*labels[:-1], CHANNEL if labels[-1] == MIXED else labels[-1])


LINEAR = Rule(
    "linear",
    **roles(dense, linear, transpose, shift, labels),
    has_shift=has_bias,
    kernel="weight",
    equation="Eqs. 6-10, damped least squares",
    **called(dense, "linear", nn.Linear),
)


def matmul(input: Tensor, other: Tensor, left: bool = False) -> Tensor:
    """x G over the last two dimensions, G x if `left`; G = `other`, a constant or captured."""
    return other @ input if left else input @ other


def matmul_transpose(w: Tensor, other: Tensor, left: bool, input_shape: Ints) -> Tensor:
    """A^T w = w G^T, or G^T w, summed over what was broadcast."""
    return sum_to(matmul(w, other.mT, left), input_shape)


def matmul_vjp(
    w: Tensor, input: Tensor, other: Tensor, left: bool, input_shape: Ints, active: Ints
) -> tuple[Tensor, Tensor | None]:
    """(w G^T, x^T w), or (G^T w, w x^T)."""
    first = matmul_transpose(w, other, left, input_shape)
    if 1 not in active:
        return first, None
    return first, sum_to(w @ input.mT if left else input.mT @ w, opened(other, w))


def matmul_swap(arguments: Arguments) -> Arguments:
    """The same product with the other factor captured."""
    return arguments | {
        "input": arguments["other"], "other": arguments["input"], "left": not arguments["left"],
    }  # fmt: skip


def matmul_labels(labels: Labels, active: Ints) -> Labels:
    """A product of two activations mixes what it pairs."""
    return labels if 1 not in active else (*labels[:-2], MIXED, MIXED)


def adapt_matmul(input: Any, other: Any = None, *, mat2: Any = None) -> Any:
    """matmul's or mm's arguments; a constant matrix on the right is a fully connected layer."""
    other = mat2 if other is None else other
    if isinstance(other, Tensor) and other.dim() == 2:
        return dense, {"input": input, "weight": other.t(), "bias": None}
    if any(isinstance(x, Tensor) and x.dim() < 2 for x in (input, other)):
        raise ValueError("matmul with a constant vector")
    return {"input": input, "other": other}


def adapt_addmm(
    input: Any, mat1: Any, mat2: Any, *, beta: float = 1, alpha: float = 1
) -> tuple[Any, Arguments]:
    """addmm's arguments: bias + x W, with constants for both."""
    if not isinstance(mat2, Tensor) or not isinstance(input, Tensor):
        raise ValueError("addmm of activations")
    arguments = {"input": mat1, "weight": alpha * mat2.t(), "bias": beta * input}
    return dense, arguments


MATMUL = Rule(
    "matmul",
    **roles(matmul, matmul_transpose, matmul_vjp, matmul_labels),
    control=("other",),
    swap=matmul_swap,
    equation="Eqs. 6-10, damped least squares",
    targets=spellings(adapt_matmul, "matmul", operator.matmul, "bmm", "mm")
    | spellings(adapt_addmm, "addmm"),
)

Terms = tuple[str, str, str]


def einsum(input: Tensor, other: Tensor | None, terms: Terms) -> Tensor:
    """The Einstein sum of x and g = `other`, with the letters `terms` of x, g and the result."""
    a, b, out = terms
    if other is None:
        return torch.einsum(f"{a}->{out}", input)
    return torch.einsum(f"{a},{b}->{out}", input, other)


def einsum_transpose(w: Tensor, other: Tensor | None, terms: Terms, input_shape: Ints) -> Tensor:
    """A^T w: the same sum with the result and x in each other's place."""
    return _back(w, other, terms, full_shape(input_shape, w))


def einsum_vjp(
    w: Tensor, input: Tensor, other: Tensor | None, terms: Terms, input_shape: Ints, active: Ints
) -> tuple[Tensor, Tensor | None]:
    """The derivative by x and by g."""
    first = einsum_transpose(w, other, terms, input_shape)
    if other is None or 1 not in active:
        return first, None
    return first, _back(w, input, (terms[1], terms[0], terms[2]), tuple(other.shape))


def einsum_swap(arguments: Arguments) -> Arguments:
    """The same sum with the other factor captured."""
    a, b, out = arguments["terms"]
    return arguments | {
        "input": arguments["other"], "other": arguments["input"], "terms": (b, a, out),
    }  # fmt: skip


def einsum_labels(labels: Labels, terms: Terms, active: Ints) -> Labels:
    """Dimensions that stay keep their letter; those of two activations are mixed."""
    known = dict(zip(terms[0], labels[-len(terms[0]) :], strict=False))
    found = tuple(known.get(letter, MIXED) for letter in terms[2])
    if 1 in active:
        return tuple(label if label == BATCH else MIXED for label in found)
    return found


def _back(w: Tensor, other: Tensor | None, terms: Terms, shape: Sequence[int]) -> Tensor:
    a, b, out = terms
    kept = "".join(letter for letter in a if letter in out or letter in b)
    found = einsum(w, other, (out, b, kept))
    for dim, letter in enumerate(a):
        if letter not in kept:
            found = found.unsqueeze(dim)
    return found.expand(shape)


def adapt_einsum(equation: str, *operands: Any, **options: Any) -> Arguments:
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


EINSUM = Rule(
    "einsum",
    **roles(einsum, einsum_transpose, einsum_vjp, einsum_labels),
    control=("other",),
    swap=einsum_swap,
    equation="Eqs. 6-10, damped least squares",
    targets=spellings(adapt_einsum, "einsum"),
)
