"""Damped least squares, matrix-free, per sample, a fixed number of steps (docs/method.md 3).

argmin_v  || R (A v - b) ||^2  +  damping * sigma_max(R A)^2 * || v ||^2
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from naflow_fx.rules._shapes import full_shape, sum_to
from naflow_fx.rules.gates import quotient
from naflow_fx.solver.krylov import (
    Problem,
    at_least_tiny,
    bidiagonal_least_squares,
    conjugate_gradient_least_squares,
    norm,
)

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class LeastSquares(nn.Module):
    """The inverse step of one operator, a layer or a whole region, given as its affine map.

    Args:
        linear, transpose: ``linear(v, *captures) = A v``, ``transpose(w, *captures) = A^T w``.
        shift: ``shift(z, *captures) = c`` for outputs like z, None where c = 0.
        input_shape: static shape of v, -1 in the batch dimension.
        damping, steps: see `options.Inverse`.
        groups: of channels that A does not mix, on both sides; each is solved by itself.
        kernels: which captures (indices) are kernels as `kernel_of_steps` keeps them.
        whole: A and A^T run in bfloat16 from end to end, with all their captures.
        measures: the residual is computed here; else by who brings v to the output anyhow.
    """

    def __init__(
        self,
        linear: nn.Module,
        transpose: nn.Module,
        shift: nn.Module | None,
        input_shape: tuple[int, ...],
        damping: float,
        steps: int,
        groups: int = 1,
        kernels: tuple[int, ...] = (),
        whole: bool = False,
        measures: bool = True,
    ) -> None:
        super().__init__()
        self.linear, self.transpose, self.shift = linear, transpose, shift
        self.input_shape, self.damping, self.steps = input_shape, damping, steps
        self.groups, self.kernels, self.whole, self.measures = groups, kernels, whole, measures

    def forward(
        self, z: Tensor, rows: Tensor | None, off: Tensor | None, *captures: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:
        """z at the output -> (v, ||R (z - c)|| [N], relative residual [N], sigma_max [N], R).

        rows: of z's shape but for its batch, which may be 1: 1 where an output neuron has an
        equation, 0 where it has none; None: all have.  off, of z's shape: where it has a bound
        (see `equations`); None: nowhere.  sigma_max is None at damping 0, the residual where it
        is measured elsewhere.
        """
        dtype = solver_dtype(z.dtype)
        b = laid_out(z.to(dtype))
        rows = None if rows is None else laid_out(rows.to(dtype))
        if self.shift is not None:
            c = self.shift(b, *self._captures(captures, dtype))
            b = b - c
            if rows is not None and off is not None:
                rows = equations(rows, off, c)
        b = b if rows is None else b * rows
        zero = b.new_zeros(full_shape(self.input_shape, b))
        inner = torch.bfloat16 if self.whole and dtype == torch.float32 else dtype
        problem = Problem(
            self.linear, self.transpose, b, laid_out(zero), self.damping, self.steps, rows,
            self._captures(captures, inner), self.groups, inner,
        )  # fmt: skip
        if self.damping:
            v, sigma = bidiagonal_least_squares(problem)
        else:
            v, sigma = conjugate_gradient_least_squares(problem), None
        length, residual = norm(b), None
        if self.measures:
            residual = relative(norm(problem.image(v) - b), length).to(z.dtype)
        return v.contiguous().to(z.dtype), length, residual, sigma, rows

    def _captures(self, captures: tuple[Tensor, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Kernels in their own dtype, all else in that one."""
        return tuple(
            as_kernel(c) if i in self.kernels else laid_out(number(c, dtype))
            for i, c in enumerate(captures)
        )


def equations(used: Tensor, off: Tensor, c: Tensor) -> Tensor:
    """R with the broken bounds among the equations, 0 and 1: one Newton step from v = 0.

    A neuron that is `off` and that nothing else used was at most 0, ``A v + c <= 0``.  v = 0 keeps
    that bound where c <= 0: no equation.  Where c > 0 it breaks it, and the equation is that the
    neuron is 0.
    """
    return torch.maximum(used, laid_out(off & (c > 0)).to(used.dtype))


def residual_of_rows(found: Tensor, wanted: Tensor, rows: Tensor | None, length: Tensor) -> Tensor:
    """||R (found - wanted)|| / length per sample, [N]; the divisor clamped."""
    rest = found - wanted
    rest = rest if rows is None else rest * rows.to(rest.dtype)
    return relative(solver_norm(rest), length).to(found.dtype)


def relative_residual(found: Tensor, wanted: Tensor, norm_of_wanted: Tensor) -> Tensor:
    """||found - wanted|| / ||wanted|| per sample, [N]; the divisor clamped."""
    return relative(solver_norm(found - wanted), norm_of_wanted).to(found.dtype)


def relative(norm_of_a: Tensor, norm_of_b: Tensor) -> Tensor:
    """||a|| / ||b|| per sample, [N]; the divisor clamped."""
    return norm_of_a / at_least_tiny(norm_of_b)


def solver_norm(x: Tensor) -> Tensor:
    """||x|| per sample, [N], in the solver's dtype."""
    return norm(x.to(solver_dtype(x.dtype)))


def each(number: Tensor, like: Tensor) -> Tensor:
    """Expands a number, one for all samples or one for each, to [N], of the dtype of `like` [N]."""
    return number.to(like.dtype).expand(like.shape).clone()


def leading_rows(z: Tensor, count: int) -> Tensor:
    """R of the first `count` output neurons of a sample (Eq. 6), [1, ...]."""
    index = torch.arange(z[0].numel(), device=z.device).reshape(1, *z.shape[1:])
    return (index < count).to(solver_dtype(z.dtype))


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
    shift: Tensor | None,
    sigma: Tensor | None,
    damping: float,
) -> Tensor:
    """d (z - c) / (d^2 + damping sigma_max^2); d is 0 where an output neuron has no equation.

    sigma: sigma_max = max |d| per sample, [N] or [1]; None at damping 0.
    """
    if shift is not None:
        z = z - shift
    bottom = diagonal * diagonal
    if sigma is not None:
        bottom = bottom + damping * (sigma * sigma).reshape(-1, *(1,) * (z.dim() - 1))
    return z * quotient(diagonal.expand_as(bottom), bottom)


def solver_dtype(dtype: torch.dtype) -> torch.dtype:
    """float32 for half precision, else the dtype itself."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def number(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x in `dtype`, masks too: a product of two dtypes takes several times as long as of one."""
    return x.to(dtype) if x.dtype == torch.bool else widen(x, dtype)


def widen(x: Tensor, dtype: torch.dtype) -> Tensor:
    """A floating point tensor in that dtype; others as they are."""
    return x.to(dtype) if x.is_floating_point() else x


def kernel_of_steps(kernel: Tensor, low: bool) -> Tensor:
    """A layer's kernel as a program keeps it for the solver: in bfloat16 if `low`, channels last.

    Its dimensions are in the order of its memory, [out, ..., in / groups]: what loads a file need
    not know of strides.
    """
    kept = kernel.to(solver_dtype(kernel.dtype))
    kept = kept.bfloat16() if low and kept.dtype == torch.float32 else kept
    return kept.movedim(1, -1).contiguous() if kept.dim() in CHANNELS_LAST else kept


def as_kernel(kept: Tensor) -> Tensor:
    """Undoes `kernel_of_steps`: the kernel [out, in / groups, ...], a view, channels last."""
    return kept.movedim(-1, 1) if kept.dim() in CHANNELS_LAST else kept


def laid_out(x: Tensor) -> Tensor:
    """Channels last where there are two or three space dimensions: oneDNN reorders nothing then."""
    return x.contiguous(memory_format=CHANNELS_LAST[x.dim()]) if x.dim() in CHANNELS_LAST else x
