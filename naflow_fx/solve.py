"""Damped least squares, matrix-free, per sample, a fixed number of steps (METHOD section 3).

argmin_v  || w (A v - b) ||^2  +  damping * sigma_max(w A)^2 * || v - prior ||^2
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from naflow_fx.rules._shapes import full_shape

Map = Callable[[Tensor], Tensor]

POWER_STEPS = 40  # compile time: sigma_max of an operator of constants
ROUNDING = 4  # relative rounding error of A^T r, in eps; measured, with a margin


def _compiled_once(step: Any) -> Any:
    """Marks a step that `torch.compile` compiles once for all steps; no change elsewhere."""
    mark = getattr(torch.compiler, "nested_compile_region", None)
    if mark is None:
        return step
    options = {"max_reuse_entries": 4096}
    return (
        mark(step, **options) if "max_reuse_entries" in signature(mark).parameters else mark(step)
    )


class LeastSquares(nn.Module):
    """The inverse step of one operator, a layer or a whole region, given as its affine map.

    Args:
        linear, transpose: ``linear(v, *captures) = A v``, ``transpose(w, *captures) = A^T w``.
        offset: ``offset(z, *captures) = c`` for outputs like z, None where c = 0.
        input_shape: static shape of v, -1 in the batch dimension.
        damping, steps: see `options.Inverse`.
        leading: keep that many output neurons of each sample (Eq. 6); None: all.
        groups: of channels that A does not mix, on both sides; each is solved by itself.
        low: captures (indices) that A and A^T take in bfloat16 while all else is solved in
            float32: the weights of dense layers.
        whole: A and A^T run in bfloat16 from end to end, with all their captures.
            With either, the basis of the solution is stored in bfloat16.
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
        low: tuple[int, ...] = (),
        whole: bool = False,
    ) -> None:
        super().__init__()
        self.linear, self.transpose, self.offset = linear, transpose, offset
        self.sigma_max = SigmaMax(linear, transpose, input_shape, leading)
        self.damping, self.steps, self.leading = damping, steps, leading
        self.groups, self.low, self.whole = groups, low, whole

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
        lower = torch.bfloat16 if dtype == torch.float32 else dtype
        inner = lower if self.whole else dtype
        captures = tuple(
            widen(c, lower if i in self.low else inner) for i, c in enumerate(captures)
        )
        rows = row_weight(b, weight, self.leading)

        def linear(v: Tensor) -> Tensor:
            result: Tensor = self.linear(v.to(inner), *captures)
            return result.to(dtype)

        def weighted(v: Tensor) -> Tensor:
            return linear(v) if rows is None else linear(v) * rows

        def back(w: Tensor) -> Tensor:
            w = w if rows is None else w * rows
            result: Tensor = self.transpose(w.to(inner), *captures)
            return result.to(dtype)

        start = None if prior is None else prior.to(dtype)
        target = b if start is None else b - linear(start)
        target = target if rows is None else target * rows
        zero = b.new_zeros(full_shape(self.sigma_max.input_shape, b))
        kept = lower if self.whole or self.low else None
        problem = Problem(weighted, back, target, zero, self.damping, self.steps, self.groups, kept)
        if sigma is None and self.damping:
            v, left = bidiagonal_least_squares(problem)
        else:
            v, left = conjugate_gradient_least_squares(problem, sigma)
        v = v if start is None else v + start
        if rows is not None:  # `left` is of the weighted residual
            return v.to(z.dtype), relative_residual(linear(v), b).to(z.dtype)
        return v.to(z.dtype), (left / at_least_tiny(norm(b))).to(z.dtype)


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


@dataclass(frozen=True)
class Problem:
    """argmin_v ||A v - b||^2 + damping sigma_max(A)^2 ||v||^2, `groups` of channels apart.

    `zero` has the shape of v.  kept: the dtype of vectors that are only
    stored, if it is another.
    """

    linear: Map
    transpose: Map
    b: Tensor
    zero: Tensor
    damping: float
    steps: int
    groups: int = 1
    kept: torch.dtype | None = None

    def dot(self, x: Tensor, y: Tensor) -> Tensor:
        """<x, y> per sample and group, [N, G]."""
        if self.groups == 1:
            return dot(x, y).unsqueeze(1)
        return (x * y).reshape(x.shape[0], self.groups, -1).sum(2)

    def times(self, a: Tensor, x: Tensor) -> Tensor:
        """Each sample's group of x multiplied by its number of a [N, G]."""
        if self.groups == 1:
            return times(a.squeeze(1), x)
        each = a.repeat_interleave(x.shape[1] // self.groups, 1)
        return each.reshape(*each.shape, *(1,) * (x.dim() - 2)) * x


def conjugate_gradient_least_squares(
    problem: Problem, sigma: Tensor | None
) -> tuple[Tensor, Tensor]:
    """(v, ||A v - b|| [N]) by CGLS from zero, for a known sigma_max (None at damping 0).

    Every sample is frozen once its gradient is down to what rounding makes of its residual,
    ``eps sigma ||r||``: going on would change nothing, or build up noise without bound where
    b is mostly out of A's range.  At damping 0 this is the minimum-norm least-squares solution.
    """
    cost = problem.dot(problem.b, problem.b)
    zero = torch.zeros_like(cost)
    shift = zero
    if problem.damping and sigma is not None:
        shift = problem.damping * (sigma * sigma).to(cost.dtype).reshape(-1, 1) + zero
    state = (problem.zero, problem.b, problem.zero, zero, cost, zero, zero, torch.ones_like(zero))
    for _ in range(problem.steps):
        state = _conjugate_gradient_step(problem, shift, *state)
    return state[0], norm(state[1])


@_compiled_once
def _conjugate_gradient_step(
    problem: Problem,
    shift: Tensor,
    x: Tensor,
    r: Tensor,
    p: Tensor,
    gamma: Tensor,
    cost: Tensor,
    largest: Tensor,
    top: Tensor,
    alive: Tensor,
) -> tuple[Tensor, ...]:
    """x, r = b - A x and the direction p after one more step; the rest are numbers [N, G].

    gamma: ||A^T r - shift x||^2 of the step before.  cost: ||r||^2 + shift ||x||^2.  largest: the
    largest ||A p||^2 / ||p||^2, towards sigma_max^2.  top: the largest gamma.  alive: 0 where
    frozen.
    """
    dot, times = problem.dot, problem.times
    s = problem.transpose(r) - times(shift, x)
    new = dot(s, s)
    p = s + times(new / nonzero(gamma) * (gamma > 0), p)
    q = problem.linear(p)
    image, size = dot(q, q), dot(p, p)
    eps = torch.finfo(s.dtype).eps
    largest, top = torch.maximum(largest, image / nonzero(size)), torch.maximum(top, new)
    curvature = image + shift * size
    rounding = torch.maximum((ROUNDING * eps) ** 2 * largest * cost, top * eps**3)
    alive = alive * ((new > rounding) & (curvature > 0))
    alpha = torch.where(alive > 0, new / torch.where(alive > 0, curvature, 1.0), 0.0)
    cost = (cost - alpha * new).clamp(min=0)
    return x + times(alpha, p), r - times(alpha, q), p, new, cost, largest, top, alive


def bidiagonal_least_squares(problem: Problem) -> tuple[Tensor, Tensor]:
    """(v, ||A v - b|| [N]) where sigma_max is not known: LSQR with its basis kept.

    Golub and Kahan's bidiagonalisation ``A V = U B`` (Paige and Saunders, ACM TOMS 1982) builds
    one Krylov space, whatever the damping.  sigma_max is B's largest singular value, the
    solution V y with ``(B^T B + damping sigma_max^2) y = B^T U^T b``: the vector that CGLS would
    reach in as many steps, had it known sigma_max before.
    """
    first = problem.dot(problem.b, problem.b).sqrt()
    u, v = problem.times(1 / nonzero(first), problem.b), problem.zero
    beta, largest = torch.zeros_like(first), torch.zeros_like(first)
    basis: list[Tensor] = []
    alphas: list[Tensor] = []
    betas: list[Tensor] = []
    for _ in range(problem.steps):
        u, v, alpha, beta, largest = _bidiagonal_step(problem, u, v, beta, largest)
        basis.append(v.to(problem.kept or v.dtype))
        alphas.append(alpha)
        betas.append(beta)
    diagonal = [a * a + b * b for a, b in zip(alphas, betas, strict=True)]
    off = [a * b for a, b in zip(alphas[1:], betas, strict=False)]
    shift = problem.damping * _largest_eigenvalue(diagonal, off).amax(1, keepdim=True).clamp(min=0)
    y = _solve_tridiagonal([d + shift for d in diagonal], off, alphas[0] * first)
    x = problem.zero
    for c, w in zip(y, basis, strict=True):
        x = x + problem.times(c, w.to(x.dtype))
    parts = [first - alphas[0] * y[0], -betas[-1] * y[-1]]
    parts += [alphas[i] * y[i] + betas[i - 1] * y[i - 1] for i in range(1, len(y))]
    return x, torch.stack(parts, 2).flatten(1).norm(dim=1)


@_compiled_once
def _bidiagonal_step(
    problem: Problem, u: Tensor, v: Tensor, beta: Tensor, largest: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The next u, v, alpha, beta; what is below the rounding of the largest alpha or beta is 0."""
    dot, times = problem.dot, problem.times
    v = problem.transpose(u) - times(beta, v)
    alpha = dot(v, v).sqrt()
    largest = torch.maximum(largest, alpha)
    alpha = torch.where(alpha > ROUNDING * torch.finfo(v.dtype).eps * largest, alpha, 0.0)
    v = times((alpha > 0) / nonzero(alpha), v)
    u = problem.linear(v) - times(alpha, u)
    beta = dot(u, u).sqrt()
    return times(1 / nonzero(beta), u), v, alpha, beta, torch.maximum(largest, beta)


def _solve_tridiagonal(diagonal: list[Tensor], off: list[Tensor], first: Tensor) -> list[Tensor]:
    """y of ``T y = first e_1`` for symmetric positive T, elementwise over tensors [N, G]."""
    pivots, right = [diagonal[0]], [first]
    for d, o in zip(diagonal[1:], off, strict=True):
        factor = o / nonzero(pivots[-1])
        pivots.append(d - factor * o)
        right.append(-factor * right[-1])
    y = [right[-1] / nonzero(pivots[-1])]
    for pivot, value, o in zip(pivots[-2::-1], right[-2::-1], off[::-1], strict=True):
        y.insert(0, (value - o * y[0]) / nonzero(pivot))
    return y


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
    return _largest_eigenvalue(diagonal, off[:-1]).clamp(min=0).sqrt()


def _largest_eigenvalue(diagonal: list[Tensor], off: list[Tensor]) -> Tensor:
    """Of symmetric tridiagonal matrices, elementwise over tensors [...], by repeated squaring."""
    if not off:  # squared in a row, a single number makes compilers write out all its powers
        return diagonal[0]
    side = torch.stack(off, -1)
    t = torch.diag_embed(torch.stack(diagonal, -1))
    t = t + torch.diag_embed(side, 1) + torch.diag_embed(side, -1)
    power = t / nonzero(t.abs().amax((-2, -1), keepdim=True))
    for _ in range(max(7, len(diagonal) // 2)):  # more steps resolve closer eigenvalues
        power = power @ power
        power = power / nonzero(power.abs().amax((-2, -1), keepdim=True))
    u = power[..., :1]  # the start is the first basis vector
    return ((u * (t @ u)).sum((-2, -1))) / nonzero((u * u).sum((-2, -1)))


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
    return size_ratio(found - wanted, size(wanted))


def size(x: Tensor) -> Tensor:
    """||x|| per sample, [N], in the solver's dtype."""
    return norm(x.to(solver_dtype(x.dtype)))


def size_ratio(a: Tensor, size_of_b: Tensor) -> Tensor:
    """||a|| / ||b|| per sample, [N]; the divisor clamped."""
    return (size(a) / at_least_tiny(size_of_b)).to(a.dtype)


def norm(x: Tensor) -> Tensor:
    """||x|| per sample, [N]."""
    length: Tensor = x.flatten(1).norm(dim=1)
    return length


def at_least_tiny(x: Tensor) -> Tensor:
    """x as a divisor: not below the smallest normal number."""
    return x.clamp(min=torch.finfo(x.dtype).tiny)


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
