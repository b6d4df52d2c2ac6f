"""Sum: y = sum_i a_i x_i with numbers a_i, operands broadcast; constants may take part."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

from torch import Tensor

from naflow_fx.rules._shapes import Ints, Shapes, Vectors, full_shape, has_constants, sum_to
from naflow_fx.rules._spellings import spellings
from naflow_fx.rules.contract import Arguments, Rule, roles
from naflow_fx.rules.copies import mean_of_copies

Operand = Tensor | float
Scales = tuple[float, ...]


def forward(inputs: Sequence[Operand], scales: Scales) -> Tensor:
    """sum_i a_i x_i."""
    total: Tensor = _sum(zip(inputs, scales, strict=True))
    return total


def _sum(terms: Iterable[tuple[Any, float]]) -> Any:
    """sum_i a_i x_i; None if there is no term.  A factor of 1 costs nothing."""
    scaled = [x if a == 1 else x * a for x, a in terms]
    return reduce(operator.add, scaled) if scaled else None


def linear(v: Vectors, scales: Scales, active: Ints, output_shape: Ints) -> Tensor:
    """sum_i a_i v_i over the active inputs; None counts as zero."""
    terms = ((x, scales[i]) for x, i in zip(v, active, strict=True) if x is not None)
    total: Tensor = _sum(terms)
    return total.expand(full_shape(output_shape, total))


def transpose(w: Tensor, scales: Scales, active: Ints, input_shapes: Shapes) -> tuple[Tensor, ...]:
    """a_i w for every active input, summed over what was broadcast."""
    return tuple(sum_to(w if scales[i] == 1 else w * scales[i], input_shapes[i]) for i in active)


def support(w: Tensor, active: Ints, input_shapes: Shapes) -> tuple[Tensor, ...]:
    """P^T w: w for every active input, summed over what was broadcast."""
    return tuple(sum_to(w, input_shapes[i]) for i in active)


def inverse(
    z: Tensor,
    index: int,
    values: Vectors,
    inputs: Sequence[Operand],
    scales: Scales,
    active: Ints,
    input_shapes: Shapes,
) -> Tensor:
    """(z - the other terms) / a, the mean where the input was broadcast (A^+)."""
    constants = shift(inputs, scales, active)
    terms = [x * scales[i] for x, i in zip(values, active, strict=True) if x is not None]
    rest = reduce(operator.sub, terms, z if constants is None else z - constants)
    total = sum_to(rest / scales[index], input_shapes[index])
    return mean_of_copies(rest, total)


def shift(inputs: Sequence[Operand], scales: Scales, active: Ints) -> Tensor | float | None:
    """c: the constant terms."""
    terms = enumerate(zip(inputs, scales, strict=True))
    total: Tensor | float | None = _sum(term for i, term in terms if i not in active)
    return total


def adapt(input: Any, other: Any, *, alpha: float = 1, out: Any = None) -> Arguments:
    """torch.add's arguments."""
    return {"inputs": (input, other), "scales": (1, alpha)}


def adapt_sub(input: Any, other: Any, *, alpha: float = 1) -> Arguments:
    """torch.sub's arguments."""
    return {"inputs": (input, other), "scales": (1, -alpha)}


def adapt_rsub(input: Any, other: Any, alpha: float = 1) -> Arguments:
    """torch.rsub's arguments: other - alpha * input."""
    return {"inputs": (other, input), "scales": (1, -alpha)}


def adapt_sum(tensors: Any, start: Any = 0) -> Arguments:
    """Python's sum of a list of activations."""
    return {"inputs": tuple(tensors), "scales": (1,) * len(tensors)}


RULE = Rule(
    "add",
    **roles(forward, linear, transpose, inverse, shift, support),
    has_shift=has_constants,
    variadic=True,
    merge="residual",
    gating="carries",
    equation="region, Eq. 7",
    targets={
        **spellings(adapt, "add.Tensor", operator.add, operator.iadd, in_place=True),
        **spellings(adapt_sub, "sub.Tensor", operator.sub, operator.isub, in_place=True),
        **spellings(adapt_rsub, "rsub.Scalar", "rsub.Tensor"),
        sum: adapt_sum,
    },
)
