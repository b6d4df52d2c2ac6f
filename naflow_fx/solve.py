"""Damped least squares, matrix-free, per sample, a fixed number of steps (METHOD section 3).

argmin_v  || w (A v - b) ||^2  +  damping * sigma_max(w A)^2 * || v - prior ||^2
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from naflow_fx.krylov import (
    Operator,
    Problem,
    at_least_tiny,
    bidiagonal_least_squares,
    conjugate_gradient_least_squares,
    largest_singular_value,
    norm,
    row_by_row,
)
from naflow_fx.rules._gate import quotient
from naflow_fx.rules._shapes import full_shape, sum_to

Cast = Callable[[Tensor, torch.dtype], Tensor]
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
POWER_STEPS = 40  # compile time: sigma_max of an operator of constants


class LeastSquares(nn.Module):
    """The inverse step of one operator, a layer or a whole region, given as its affine map.

    Args:
        linear, transpose: ``linear(v, *captures) = A v``, ``transpose(w, *captures) = A^T w``.
        offset: ``offset(z, *captures) = c`` for outputs like z, None where c = 0.
        input_shape: static shape of v, -1 in the batch dimension.
        damping, steps: see `options.Inverse`.
        leading: keep that many output neurons of each sample (Eq. 6); None: all.
        groups: of channels that A does not mix, on both sides; each is solved by itself.
        weights: which captures (indices) are stored weights, taken in their own dtype.
        whole: A and A^T run in bfloat16 from end to end, with all their captures.
        packings: by index, how stored weights are packed for the processor: once a solve, where
            no compiler takes part.
    """

    def __init__(
        self,
        linear: nn.Module,
        transpose: nn.Module,
        offset: nn.Module | None,
        input_shape: tuple[int, ...],
        damping: float,
        steps: int,
        leading: int | None = None,
        groups: int = 1,
        weights: tuple[int, ...] = (),
        whole: bool = False,
        packings: Mapping[int, Callable[[Tensor], Tensor]] | None = None,
    ) -> None:
        super().__init__()
        self.packings = dict(packings or {})
        self.offset = offset
        self.operator = Operator(linear, transpose, groups, whole)
        self.sigma_max = SigmaMax(linear, transpose, input_shape, leading, weights)
        self.damping, self.steps, self.leading, self.weights = damping, steps, leading, weights

    def forward(
        self,
        z: Tensor,
        sigma: Tensor | None,
        weight: Tensor | None,
        prior: Tensor | None,
        *captures: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """z at the output -> (z at the input, relative residual [N], sigma_max).

        sigma: sigma_max as a scalar; None: estimated here, per sample, [N], but for damping 0.
        weight: w, of z's shape, or None.  prior: of the result's shape, or None for zero.
        """
        dtype = solver_dtype(z.dtype)
        b = laid_out(z.to(dtype))
        if self.offset is not None:
            b = b - self.offset(b, *self._captures(captures, dtype, widen))
        captures = self._captures(captures, self.operator.inner(dtype), number)
        if is_plain(b):
            captures = tuple(
                self.packings[i](c) if i in self.packings else c for i, c in enumerate(captures)
            )
        rows = row_weight(b, weight, self.leading)
        rows = None if rows is None else laid_out(rows)
        start = None if prior is None else laid_out(prior.to(dtype))
        target = b if start is None else b - self.operator.image(start, None, captures)
        target = target if rows is None else target * rows
        zero = laid_out(b.new_zeros(full_shape(self.sigma_max.input_shape, b)))
        problem = Problem(self.operator, target, zero, self.damping, self.steps, rows, captures)
        if sigma is None and self.damping:
            v, left, sigma = bidiagonal_least_squares(problem)
        else:
            v, left = conjugate_gradient_least_squares(problem, sigma)
        v = v if start is None else v + start
        if rows is not None:  # `left` is of the weighted residual
            left = relative_residual(self.operator.image(v, None, captures), b, size(b))
        else:
            left = left / at_least_tiny(norm(b))
        v = row_by_row(v) if v.dim() in CHANNELS_LAST else v
        return v.to(z.dtype), left.to(z.dtype), sigma

    def _captures(
        self, captures: tuple[Tensor, ...], dtype: torch.dtype, cast: Cast
    ) -> tuple[Tensor, ...]:
        """Weights in their own dtype, all else cast to that one."""
        return tuple(
            weight_of_steps(c) if i in self.weights else laid_out(cast(c, dtype))
            for i, c in enumerate(captures)
        )


def is_plain(x: Tensor) -> bool:
    """Whether x holds numbers, and nobody records or transforms what is done to it."""
    watched = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    return type(x) is Tensor and not watched and not x.requires_grad


class SigmaMax(nn.Module):
    """The largest singular value of an operator of constants, by Lanczos from fixed noise."""

    def __init__(
        self,
        linear: nn.Module,
        transpose: nn.Module,
        input_shape: tuple[int, ...],
        leading: int | None,
        weights: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.linear, self.transpose = linear, transpose
        self.input_shape, self.leading, self.weights = input_shape, leading, weights

    def forward(self, *captures: Tensor) -> Tensor:
        """sigma_max, a scalar."""
        first = next(c for c in captures if c.is_floating_point())
        dtype = solver_dtype(first.dtype)
        captures = tuple(
            widen(weight_of_steps(c) if i in self.weights else c, dtype)
            for i, c in enumerate(captures)
        )
        generator = torch.Generator().manual_seed(0)
        shape = [1 if size == -1 else size for size in self.input_shape]
        start = torch.randn(shape, generator=generator, dtype=torch.float64)

        def normal(v: Tensor) -> Tensor:
            w = self.linear(v, *captures)
            rows = row_weight(w, None, self.leading)
            result: Tensor = self.transpose(w if rows is None else w * rows, *captures)
            return result

        return largest_singular_value(normal, start.to(first.device, dtype), POWER_STEPS)[0]


def relative_residual(found: Tensor, wanted: Tensor, size_of_wanted: Tensor) -> Tensor:
    """||found - wanted|| / ||wanted|| per sample, [N]; the divisor clamped."""
    return relative(size(found - wanted), size_of_wanted).to(found.dtype)


def relative(size_of_a: Tensor, size_of_b: Tensor) -> Tensor:
    """||a|| / ||b|| per sample, [N]; the divisor clamped."""
    return size_of_a / at_least_tiny(size_of_b)


def size(x: Tensor) -> Tensor:
    """||x|| per sample, [N], in the solver's dtype."""
    return norm(x.to(solver_dtype(x.dtype)))


def each(number: Tensor, like: Tensor) -> Tensor:
    """A number, one for all samples or one for each, as [N], in the dtype of `like` [N]."""
    return number.to(like.dtype).expand(like.shape).clone()


def importance_weight(importance: Tensor, clip: float) -> Tensor:
    """w = |Lambda| / mean |Lambda| per sample, clipped; 1 where the mean is 0 (section 8)."""
    size = importance.to(solver_dtype(importance.dtype)).abs()
    mean = size.mean(tuple(range(1, size.dim())), keepdim=True)
    alive = mean > 0
    return torch.where(alive, size / torch.where(alive, mean, 1.0), 1.0).clamp(max=clip)


def row_weight(b: Tensor, weight: Tensor | None, leading: int | None) -> Tensor | None:
    """The weight of every output neuron; None: all 1."""
    if leading is None:
        return None if weight is None else weight.to(b.dtype)
    index = torch.arange(b[0].numel(), device=b.device).reshape(b.shape[1:])
    kept = (index < leading).to(b.dtype).expand_as(b)
    return kept if weight is None else kept * weight.to(b.dtype)


def channel_sigma_max(matrix: Tensor, scales: list[Tensor]) -> Tensor:
    """sigma_max of A = diag(scales) matrix, a scalar in float64; shapes as `channel_inverse`'s."""
    largest: Tensor = torch.linalg.eigvalsh(_gram(_scaled(matrix, scales))).amax()
    return largest.clamp(min=0).sqrt()


def channel_inverse(
    matrix: Tensor,
    scales: list[Tensor],
    sigma: Tensor | None,
    damping: float,
    weight_shape: tuple[int, ...],
) -> Tensor:
    """(A^T A + damping sigma_max^2)^-1 A^T of A = diag(scales) matrix, as a weight.

    matrix [groups, out / groups, in / groups]; each scale holds `out` numbers; sigma: sigma_max,
    None at damping 0, where it is the pseudo-inverse.  In float64, made at compile time.  Returned
    in the shape of a weight of `out` inputs and `in` outputs, [in, out / groups, 1, ...].
    """
    groups, rows, columns = matrix.shape
    a = _scaled(matrix, scales)
    if sigma is None:
        found = torch.linalg.pinv(a)
    else:
        gram = _gram(a)
        gram = gram + damping * sigma**2 * torch.eye(len(gram[0]), dtype=a.dtype, device=a.device)
        wide = rows < columns
        found = torch.linalg.solve(gram, a).mT if wide else torch.linalg.solve(gram, a.mT)
    made: Tensor = found.reshape(groups * columns, rows, *weight_shape[2:])
    return made.to(matrix.dtype)


def _scaled(matrix: Tensor, scales: list[Tensor]) -> Tensor:
    """diag(scales) matrix, in float64."""
    a = matrix.double()
    for scale in scales:
        a = a * scale.double().reshape(*matrix.shape[:2], 1)
    return a


def _gram(a: Tensor) -> Tensor:
    """A^T A; where A is wide A A^T: A^T (A A^T + d)^-1 is the same, and the smaller system."""
    return a @ a.mT if a.shape[1] < a.shape[2] else a.mT @ a


def diagonal_sigma_max(
    diagonal: Tensor, input_shape: Sequence[int], output_shape: Sequence[int]
) -> Tensor:
    """sigma_max of v -> d v per sample: max |d|, [N]; [1] where d is a constant.

    Of an input that is broadcast, the largest norm of the d that multiply one number.
    """
    rank = len(output_shape)
    d = diagonal.reshape(*(1,) * (rank - diagonal.dim()), *diagonal.shape)
    copies = zip(d.shape[1:], input_shape[1:], output_shape[1:], strict=True)
    sizes = [many if one == 1 else own for own, one, many in copies]
    square = sum_to((d * d).expand(-1, *sizes), input_shape)
    return square.flatten(1).amax(1).sqrt()


def damped_diagonal(
    z: Tensor,
    diagonal: Tensor,
    offset: Tensor | None,
    prior: Tensor | None,
    sigma: Tensor | None,
    damping: float,
) -> Tensor:
    """d (z - c) / (d^2 + damping sigma_max^2), around the prior if given.

    sigma: sigma_max = max |d| per sample, [N] or [1]; None at damping 0.
    """
    if offset is not None:
        z = z - offset
    if prior is not None:
        z = z - diagonal * prior
    bottom = diagonal * diagonal
    if sigma is not None:
        bottom = bottom + damping * (sigma * sigma).reshape(-1, *(1,) * (z.dim() - 1))
    v = z * quotient(diagonal.expand_as(bottom), bottom)
    return v if prior is None else v + prior


def solver_dtype(dtype: torch.dtype) -> torch.dtype:
    """float32 for half precision, else the dtype itself."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def number(x: Tensor, dtype: torch.dtype) -> Tensor:
    """The same, masks too: a product of two dtypes takes several times as long as one of equal."""
    return x.to(dtype) if x.dtype == torch.bool else widen(x, dtype)


def stored_weight(weight: Tensor, low: bool) -> Tensor:
    """A layer's weight as a program keeps it for the solver: in bfloat16 if `low`, channels last.

    Its dimensions are in the order of its memory, [out, ..., in / groups]: what loads a file need
    not know of strides.
    """
    kept = weight.to(solver_dtype(weight.dtype))
    kept = kept.bfloat16() if low and kept.dtype == torch.float32 else kept
    return kept.movedim(1, -1).contiguous() if kept.dim() in CHANNELS_LAST else kept


def weight_of_steps(stored: Tensor) -> Tensor:
    """The weight [out, in / groups, ...] of a stored one: a view, laid out channels last."""
    return stored.movedim(-1, 1) if stored.dim() in CHANNELS_LAST else stored


def laid_out(x: Tensor) -> Tensor:
    """Channels last where there are two or three space dimensions: oneDNN reorders nothing then."""
    return x.contiguous(memory_format=CHANNELS_LAST[x.dim()]) if x.dim() in CHANNELS_LAST else x


def widen(x: Tensor, dtype: torch.dtype) -> Tensor:
    """A floating point tensor in that dtype; others as they are."""
    return x.to(dtype) if x.is_floating_point() else x
