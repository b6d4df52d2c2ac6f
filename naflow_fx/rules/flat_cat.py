"""Virtual concatenation of feature nodes: y = [flat(x_1), flat(x_2), ...], [N, total].

No network has it: the compiler joins several feature nodes with it, so that a fork which they
share is the entry of a region (docs/method.md 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from naflow_fx.rules._shapes import Ints, Shapes, Vectors, full_shape
from naflow_fx.rules.cat import with_zeros
from naflow_fx.rules.contract import Labels, Rule


def forward(inputs: Sequence[Tensor]) -> Tensor:
    """All inputs [N, ...] flattened and concatenated, [N, total]."""
    return torch.cat([x.flatten(1) for x in inputs], 1)


def linear(v: Vectors, active: Ints, input_shapes: Shapes) -> Tensor:
    """[flat(v_1), ...]; None counts as zero."""
    return forward(with_zeros(v, active, input_shapes))


def transpose(w: Tensor, input_shapes: Shapes) -> tuple[Tensor, ...]:
    """Each input's part of w, in its shape."""
    parts = torch.split(w, [math.prod(shape[1:]) for shape in input_shapes], 1)
    return tuple(
        part.reshape(full_shape(shape, w)) for part, shape in zip(parts, input_shapes, strict=True)
    )


def inverse(z: Tensor, index: int, input_shapes: Shapes) -> Tensor:
    """The part of z of input `index`."""
    return transpose(z, input_shapes)[index]


def labels(labels: Labels) -> Labels:
    """[N, mixed]."""
    return ("N", "?")


RULE = Rule(
    "flat_cat",
    forward,
    linear,
    transpose,
    inverse,
    variadic=True,
    merge="features",
    labels=labels,
    equation="split",
)
