"""Reductions of a few dimensions: y = sum(t x) + c, with the weights t captured; mean and sum.

The weights are the derivative at the captured point, of the input's shape.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from naflow_fx.rules import choices
from naflow_fx.rules._shapes import Ints, full_shape, ints
from naflow_fx.rules._spellings import spellings
from naflow_fx.rules.contract import COLLAPSED, Arguments, Function, Labels, Rule, roles


def linear(v: Tensor, weights: Tensor, dim: Ints, keepdim: bool) -> Tensor:
    """A v = sum(t v)."""
    return (v * weights).sum(dim, keepdim)


def transpose(w: Tensor, weights: Tensor, dim: Ints, keepdim: bool) -> Tensor:
    """A^T w = t w."""
    return restore_reduced(w, weights.dim(), dim, keepdim) * weights


def inverse(
    z: Tensor, input: Tensor, output: Tensor, weights: Tensor, dim: Ints, keepdim: bool
) -> Tensor:
    """A^+ (z - c)."""
    return pseudo_inverse(z - shift(input, output, weights, dim, keepdim), weights, dim, keepdim)


def pseudo_inverse(z: Tensor, weights: Tensor, dim: Ints, keepdim: bool) -> Tensor:
    """A^+ z = t z / sum(t^2); 0 where all weights are 0."""
    square = (weights * weights).sum(dim, keepdim)
    share = torch.where(square > 0, z / torch.where(square > 0, square, 1.0), 0.0)
    return transpose(share, weights, dim, keepdim)


def shift(input: Tensor, output: Tensor, weights: Tensor, dim: Ints, keepdim: bool) -> Tensor:
    """c = y - sum(t x)."""
    return output - linear(input, weights, dim, keepdim)


def labels(labels: Labels, dim: Ints, keepdim: bool) -> Labels:
    """The letters that are left; collapsed ones if kept."""
    gone = {d % len(labels) for d in dim}
    kept = [COLLAPSED if d in gone else label for d, label in enumerate(labels)]
    return tuple(label for d, label in enumerate(kept) if keepdim or d not in gone)


def restore_reduced(w: Tensor, rank: int, dim: Ints, keepdim: bool) -> Tensor:
    """w with the reduced dimensions of `rank` back, of size 1."""
    if keepdim:
        return w
    for d in sorted(d % rank for d in dim):
        w = w.unsqueeze(d)
    return w


def checked(dim: int | Ints | list[int] | None) -> Ints:
    """`dim` as a tuple.

    Raises:
        ValueError: it is missing: the batch would be mixed.
    """
    found = () if dim is None else ints(dim)
    if not found:
        raise ValueError("a reduction over the batch dimension mixes images")
    return found


def along(**fixed: Any) -> Function:
    """The adapter of a reduction along `dim`, with `fixed` arguments."""

    def arguments(input: Any, dim: Any = None, keepdim: bool = False, **options: Any) -> Arguments:
        return {"input": input, "dim": checked(dim), "keepdim": keepdim, **fixed}

    return arguments


def reduction(name: str, forward: Function, weights: Function, **others: Any) -> Rule:
    """The rule of a reduction: ``weights`` is t, the derivative at the captured point."""
    fields = roles(forward, linear, transpose, inverse, shift, labels)
    fields |= {"capture": weights, "captures": ("weights",), "equation": "tangent, least squares"}
    return Rule(name, **fields | others)


def amax(
    input: Tensor, dim: Ints, keepdim: bool = False, largest: bool = True, first: bool = False
) -> Tensor:
    """The largest along `dim`, the smallest unless `largest`; `first`: in a tie, one wins."""
    return torch.amax(input, dim, keepdim) if largest else torch.amin(input, dim, keepdim)


def winners(
    input: Tensor, output: Tensor, dim: Ints, keepdim: bool, largest: bool, first: bool
) -> Tensor:
    """t: 1 at the winner, else 0; torch.amax shares a tie, torch.max gives it to one."""
    if first:
        index = input.argmax(dim[0], True) if largest else input.argmin(dim[0], True)
        return torch.zeros_like(input).scatter(dim[0], index, 1.0)
    won = (input == restore_reduced(output, input.dim(), dim, keepdim)).to(input.dtype)
    return won / won.sum(dim, keepdim=True)


def amax_inverse(z: Tensor, weights: Tensor, dim: Ints, keepdim: bool) -> Tensor:
    """z at the winners, 0 elsewhere (Eq. 14)."""
    return torch.where(weights > 0, restore_reduced(z, weights.dim(), dim, keepdim), 0.0)


def adapt_max(largest: bool) -> Function:
    """The adapter for max and min: of one tensor along a dimension, or of two tensors."""

    def arguments(
        input: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None, piece: int = 0,
        **options: Any,
    ) -> Any:  # fmt: skip
        second = other if other is not None else dim
        if second is not None and not isinstance(second, (int, tuple)):
            return choices.maximum, {"inputs": (input, second), "largest": largest}
        if piece == 1:
            raise ValueError("the index of a maximum has no derivative")
        return along(largest=largest, first=isinstance(dim, int))(input, dim, keepdim)

    return arguments


AMAX = reduction(
    "amax",
    amax,
    winners,
    inverse=amax_inverse,
    shift=None,
    equation="Eq. 14",
    targets={
        **spellings(along(largest=True), "amax"),
        **spellings(along(largest=False), "amin"),
        **spellings(adapt_max(True), "max", "max.dim"),
        **spellings(adapt_max(False), "min", "min.dim"),
    },
)


def logsumexp(input: Tensor, dim: Ints, keepdim: bool = False) -> Tensor:
    """log sum exp(x) along `dim`."""
    return torch.logsumexp(input, dim, keepdim)


def logsumexp_weights(input: Tensor, output: Tensor, dim: Ints, keepdim: bool) -> Tensor:
    """t = exp(x - y)."""
    return torch.exp(input - restore_reduced(output, input.dim(), dim, keepdim))


LOGSUMEXP = reduction(
    "logsumexp", logsumexp, logsumexp_weights, targets=spellings(along(), "logsumexp")
)


def mean(input: Tensor, dim: Ints, keepdim: bool = False, total: bool = False) -> Tensor:
    """The mean over `dim`, (1 / n) sum x, with a number for 1 / n; the sum if `total`."""
    return input.sum(dim, keepdim) if total else input.mean(dim, keepdim)


def mean_transpose(w: Tensor, dim: Ints, keepdim: bool, total: bool, input_shape: Ints) -> Tensor:
    """A^T w: w spread, divided by the number of entries unless `total`."""
    whole = mean_support(w, dim, keepdim, input_shape)
    return whole if total else whole / math.prod([input_shape[d] for d in dim])


def mean_support(w: Tensor, dim: Ints, keepdim: bool, input_shape: Ints) -> Tensor:
    """P^T w: w spread."""
    return restore_reduced(w, len(input_shape), dim, keepdim).expand(full_shape(input_shape, w))


def mean_inverse(z: Tensor, dim: Ints, keepdim: bool, total: bool, input_shape: Ints) -> Tensor:
    """A^+ z: every entry the mean (minimum norm)."""
    return mean_transpose(z, dim, keepdim, not total, input_shape)


MEAN = Rule(
    "mean",
    **roles(mean, mean_transpose, mean_inverse, mean_support, labels),
    equation="least squares, exact",
    targets=spellings(along(total=False), "mean", "mean.dim")
    | spellings(along(total=True), "sum", "sum.dim_IntList"),
)


def norm(input: Tensor, ord: float, dim: Ints, keepdim: bool = False) -> Tensor:
    """(sum |x|^p)^(1 / p) along `dim`, p = `ord`."""
    result: Tensor = torch.linalg.vector_norm(input, ord, dim, keepdim)
    return result


def norm_weights(input: Tensor, output: Tensor, ord: float, dim: Ints, keepdim: bool) -> Tensor:
    """t = sign(x) |x / y|^(p - 1); 0 where the norm is 0."""
    y = restore_reduced(output, input.dim(), dim, keepdim)
    ratio = input.abs() / torch.where(y > 0, y, 1.0)
    return torch.where(y > 0, torch.sign(input) * ratio.pow(ord - 1), 0.0)


def adapt_norm(
    input: Any, p: Any = 2, dim: Any = None, keepdim: bool = False, **options: Any
) -> Arguments:
    """torch.norm's or torch.linalg.vector_norm's arguments."""
    order = options.get("ord", p)
    order = 2 if order in (None, "fro") else order
    if not isinstance(order, (int, float)) or not 1 <= order < float("inf"):
        raise ValueError(f"norm of order {order!r}: wanted a number from 1 on")
    return {"input": input, "ord": float(order), "dim": checked(dim), "keepdim": keepdim}


_linalg = (torch.linalg.vector_norm, torch.linalg.norm)
NORM = reduction(
    "norm",
    norm,
    norm_weights,
    inverse=pseudo_inverse,
    shift=None,
    equation="exact, least squares",
    targets=spellings(adapt_norm, *_linalg, "norm.ScalarOpt_dim", "linalg_vector_norm"),
)


def var(
    input: Tensor, dim: Ints, correction: float = 1, keepdim: bool = False, root: bool = False
) -> Tensor:
    """The variance sum (x - mean)^2 / (n - correction) along `dim`; its square root if `root`."""
    function = torch.std if root else torch.var
    return function(input, dim, correction=correction, keepdim=keepdim)


def var_weights(
    input: Tensor, output: Tensor, dim: Ints, correction: float, keepdim: bool, root: bool
) -> Tensor:
    """t = 2 (x - mean) / (n - correction), divided by 2 y for the root."""
    count = math.prod([input.shape[d] for d in dim]) - correction
    slope = (input - input.mean(dim, keepdim=True)) / count
    if not root:
        return 2 * slope
    y = restore_reduced(output, input.dim(), dim, keepdim)
    return torch.where(y > 0, slope / torch.where(y > 0, y, 1.0), 0.0)


def adapt_var(root: bool) -> Function:
    """The adapter for var or std."""

    def arguments(
        input: Any, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *,
        correction: Any = None,
    ) -> Arguments:  # fmt: skip
        correction = float(unbiased) if correction is None else correction
        return {"input": input, "dim": checked(dim), "keepdim": keepdim, "root": root,
                "correction": correction}  # fmt: skip

    return arguments


VAR = reduction(
    "var",
    var,
    var_weights,
    targets=spellings(adapt_var(root=False), "var.dim", "var.correction")
    | spellings(adapt_var(root=True), "std.dim", "std.correction"),
)
