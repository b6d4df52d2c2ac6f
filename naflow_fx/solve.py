"""Damped least squares, matrix-free, per sample, a fixed number of steps (METHOD section 3).

argmin_v  || w (A v - b) ||^2  +  damping * sigma_max(w A)^2 * || v - prior ||^2
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Map = Callable[[Tensor], Tensor]

POWER_STEPS = 40  # compile time: sigma_max of an operator of constants
SAMPLE_STEPS = 5  # run time: sigma_max of an operator that depends on the sample
ROUNDING = 4  # relative rounding error of A^T r, in eps; measured, with a margin


class LeastSquares(nn.Module):
    """The inverse step of one operator, a layer or a whole region, given as its affine map.

    Args:
        linear, transpose: ``linear(v, *captures) = A v``, ``transpose(w, *captures) = A^T w``.
        offset: ``offset(z, *captures) = c`` for outputs like z, None where c = 0.
        input_shape: static shape of v, -1 in the batch dimension.
        damping, steps: see `options.Inverse`.
        leading: keep that many output neurons of each sample (Eq. 6); None: all.
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
    ) -> None:
        super().__init__()
        self.linear, self.transpose, self.offset = linear, transpose, offset
        self.sigma_max = SigmaMax(linear, transpose, input_shape, leading)
        self.damping, self.steps, self.leading = damping, steps, leading

    def forward(
        self,
        z: Tensor,
        sigma: Tensor | None,
        weight: Tensor | None,
        prior: Tensor | None,
        *captures: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """z at the output -> (z at the input, relative residual [N]).

        sigma: sigma_max as a scalar; None: estimated here, per sample.  weight: w, of z's shape,
        or None.  prior: of the result's shape, or None for zero.
        """
        dtype = solver_dtype(z.dtype)
        captures = tuple(widen(c, dtype) for c in captures)
        b = z.to(dtype)
        if self.offset is not None:
            b = b - self.offset(b, *captures)

        def linear(v: Tensor) -> Tensor:
            result: Tensor = self.linear(v, *captures)
            return result

        def transpose(w: Tensor) -> Tensor:
            result: Tensor = self.transpose(w, *captures)
            return result

        rows = row_weight(b, weight, self.leading)
        start = None if prior is None else prior.to(dtype)
        target = b if start is None else b - linear(start)
        v = damped_least_squares(linear, transpose, target, rows, sigma, self.damping, self.steps)
        v = v if start is None else v + start
        return v.to(z.dtype), relative_residual(linear(v), b).to(z.dtype)


class SigmaMax(nn.Module):
    """The largest singular value of an operator of constants, by Lanczos from fixed noise."""

    def __init__(
        self,
        linear: nn.Module,
        transpose: nn.Module,
        input_shape: tuple[int, ...],
        leading: int | None,
    ) -> None:
        super().__init__()
        self.linear, self.transpose = linear, transpose
        self.input_shape, self.leading = input_shape, leading

    def forward(self, *captures: Tensor) -> Tensor:
        """sigma_max, a scalar."""
        first = next(c for c in captures if c.is_floating_point())
        dtype = solver_dtype(first.dtype)
        captures = tuple(widen(c, dtype) for c in captures)
        generator = torch.Generator().manual_seed(0)
        shape = [1 if size == -1 else size for size in self.input_shape]
        start = torch.randn(shape, generator=generator, dtype=torch.float64)

        def normal(v: Tensor) -> Tensor:
            w = self.linear(v, *captures)
            rows = row_weight(w, None, self.leading)
            result: Tensor = self.transpose(w if rows is None else w * rows, *captures)
            return result

        return largest_singular_value(normal, start.to(first.device, dtype), POWER_STEPS)[0]


def damped_least_squares(
    linear: Map,
    transpose: Map,
    b: Tensor,
    weight: Tensor | None,
    sigma: Tensor | None,
    damping: float,
    steps: int,
) -> Tensor:
    """argmin_v ||w (A v - b)||^2 + damping sigma^2 ||v||^2 by CGLS from zero.

    Every sample is frozen once its gradient is down to what rounding makes of its residual,
    ``eps sigma ||r||``: going on would change nothing, or build up noise without bound where
    b is mostly out of A's range.  At damping 0 this is the minimum-norm least-squares solution.
    """

    def weighted(v: Tensor) -> Tensor:
        return linear(v) if weight is None else linear(v) * weight

    def back(w: Tensor) -> Tensor:
        return transpose(w if weight is None else w * weight)

    r = b if weight is None else b * weight
    s = back(r)
    shift = _shift(lambda v: back(weighted(v)), s, sigma, damping)
    x, p, gamma, cost = torch.zeros_like(s), s, dot(s, s), dot(r, r)
    eps, largest = torch.finfo(s.dtype).eps, torch.zeros_like(gamma)
    tiny = gamma * eps**3
    for _ in range(steps):
        q = weighted(p)
        image, size = dot(q, q), dot(p, p)
        largest = torch.maximum(largest, image / nonzero(size))  # towards sigma_max^2
        curvature = image + shift * size
        rounding = (ROUNDING * eps) ** 2 * largest * cost
        moving = (gamma > torch.maximum(rounding, tiny)) & (curvature > 0)
        alpha = torch.where(moving, gamma / torch.where(moving, curvature, 1.0), 0.0)
        cost = (cost - alpha * gamma).clamp(min=0)  # ||r||^2 + shift ||x||^2
        x = x + times(alpha, p)
        r = r - times(alpha, q)
        s = back(r) - times(shift, x)
        new = dot(s, s)
        beta = torch.where(moving, new / torch.where(moving, gamma, 1.0), 0.0)
        p = s + times(beta, p)
        gamma = torch.where(moving, new, 0.0)
    return x


def _shift(normal: Map, s: Tensor, sigma: Tensor | None, damping: float) -> Tensor:
    """damping * sigma_max^2, [N], or [1] for all samples."""
    if damping == 0:
        return s.new_zeros(1)
    if sigma is None:
        sigma = largest_singular_value(normal, s, SAMPLE_STEPS)
    return damping * (sigma * sigma).to(s.dtype).reshape(-1)


def largest_singular_value(normal: Map, start: Tensor, steps: int) -> Tensor:
    """sigma_max per sample, [N]: the square root of the largest Ritz value of A^T A.

    Lanczos from `start`; a sample whose `start` is 0 gets 0.
    """
    norm = dot(start, start).sqrt()
    v, previous = times(1 / nonzero(norm), start), torch.zeros_like(start)
    beta = torch.zeros_like(norm)
    diagonal, off = [], []
    for _ in range(steps):
        u = normal(v) - times(beta, previous)
        alpha = dot(u, v)
        u = u - times(alpha, v)
        beta = dot(u, u).sqrt()
        diagonal.append(alpha)
        off.append(beta)
        previous, v = v, times(1 / nonzero(beta), u)
    ritz = _largest_eigenvalue(torch.stack(diagonal, 1), torch.stack(off, 1)[:, :-1])
    return ritz.clamp(min=0).sqrt()


def _largest_eigenvalue(diagonal: Tensor, off: Tensor) -> Tensor:
    """Of symmetric tridiagonal matrices [N, k] and [N, k - 1], by repeated squaring; [N]."""
    t = torch.diag_embed(diagonal)
    if off.shape[1]:
        t = t + torch.diag_embed(off, 1) + torch.diag_embed(off, -1)
    power = t / nonzero(t.abs().amax((1, 2), keepdim=True))
    for _ in range(max(7, diagonal.shape[1] // 2)):  # more steps resolve closer eigenvalues
        power = power @ power
        power = power / nonzero(power.abs().amax((1, 2), keepdim=True))
    u = power[:, :, :1]  # the start is the first basis vector
    return ((u * (t @ u)).sum((1, 2))) / nonzero((u * u).sum((1, 2)))


def dot(a: Tensor, b: Tensor) -> Tensor:
    """<a, b> per sample, [N]."""
    return (a * b).flatten(1).sum(1)


def times(a: Tensor, x: Tensor) -> Tensor:
    """Each sample of x multiplied by its number of a [N]."""
    return a.reshape(-1, *(1,) * (x.dim() - 1)) * x


def nonzero(x: Tensor) -> Tensor:
    """x with 0 replaced by 1, as a divisor."""
    return torch.where(x == 0, 1.0, x)


def relative_residual(found: Tensor, wanted: Tensor) -> Tensor:
    """||found - wanted|| / ||wanted|| per sample, [N]; the divisor clamped."""
    return ratio(found - wanted, wanted)


def ratio(a: Tensor, b: Tensor) -> Tensor:
    """||a|| / ||b|| per sample, [N]; the divisor clamped."""
    dtype = solver_dtype(a.dtype)
    top, bottom = (x.to(dtype).flatten(1).norm(dim=1) for x in (a, b))
    share: Tensor = top / bottom.clamp(min=torch.finfo(dtype).tiny)
    return share.to(a.dtype)


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


def channel_inverse(
    matrix: Tensor, scales: list[Tensor], damping: float, weight_shape: tuple[int, ...]
) -> Tensor:
    """(A^T A + damping sigma_max^2)^-1 A^T of A = diag(scales) matrix, as a weight.

    matrix [groups, out / groups, in / groups]; each scale holds `out` numbers.  In float64, made
    at compile time; at damping 0 the pseudo-inverse.  Returned in the shape of a weight of
    `out` inputs and `in` outputs, [in, out / groups, 1, ...].
    """
    groups, rows, columns = matrix.shape
    a = matrix.double()
    for scale in scales:
        a = a * scale.double().reshape(groups, rows, 1)
    if damping == 0:
        found = torch.linalg.pinv(a)
    else:
        wide = rows < columns  # A^T (A A^T + d)^-1 is the same, and the smaller system
        gram = a @ a.mT if wide else a.mT @ a
        shift = damping * torch.linalg.eigvalsh(gram).amax()
        gram = gram + shift * torch.eye(len(gram[0]), dtype=a.dtype, device=a.device)
        found = torch.linalg.solve(gram, a).mT if wide else torch.linalg.solve(gram, a.mT)
    made: Tensor = found.reshape(groups * columns, rows, *weight_shape[2:])
    return made.to(matrix.dtype)


def damped_diagonal(
    z: Tensor, diagonal: Tensor, offset: Tensor | None, prior: Tensor | None, damping: float
) -> Tensor:
    """d (z - c) / (d^2 + damping max d^2), the maximum per sample; around the prior if given."""
    if offset is not None:
        z = z - offset
    if prior is not None:
        z = z - diagonal * prior
    square = diagonal * diagonal
    bottom = square + damping * square.amax(tuple(range(1, square.dim())), keepdim=True)
    v = torch.where(bottom > 0, diagonal * z / torch.where(bottom > 0, bottom, 1.0), 0.0)
    return v if prior is None else v + prior


def solver_dtype(dtype: torch.dtype) -> torch.dtype:
    """float32 for half precision, else the dtype itself."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def widen(x: Tensor, dtype: torch.dtype) -> Tensor:
    """A floating point tensor in that dtype; others as they are."""
    return x.to(dtype) if x.is_floating_point() else x
