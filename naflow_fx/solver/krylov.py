"""Least squares in a Krylov space: per sample, a fixed number of steps, no control flow.

argmin_v  || R (A v - b) ||^2  +  damping * sigma_max(R A)^2 * || v ||^2

R selects equations: numbers 0 and 1, one for each output neuron.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

Map = Callable[..., Tensor]

ROUNDING = 4  # relative rounding error of A^T r, in eps; measured, with a margin


@dataclass(frozen=True)
class Problem:
    """argmin_v ||R (A v - b)||^2 + damping sigma_max(R A)^2 ||v||^2, groups apart.

    Attributes:
        linear, transpose: ``linear(v, *captures) = A v``, ``transpose(w, *captures) = A^T w``.
        b: R b, selected already.
        zero: of the shape of v.
        damping, steps: see `options.Inverse`.
        rows: R, of b's shape but for its batch, which may be 1; None: all equations.
        captures: what A and A^T take besides vectors.
        groups: of channels that A does not mix, on both sides; each is solved by itself.
        dtype: what A and A^T take and give; None: that of the vectors.
    """

    linear: Map
    transpose: Map
    b: Tensor
    zero: Tensor
    damping: float
    steps: int
    rows: Tensor | None = None
    captures: tuple[Tensor, ...] = ()
    groups: int = 1
    dtype: torch.dtype | None = None

    def image(self, v: Tensor) -> Tensor:
        """R A v, in v's dtype."""
        w = self.linear(v.to(self.dtype or v.dtype), *self.captures).to(v.dtype)
        return w if self.rows is None else w * self.rows

    def back(self, w: Tensor) -> Tensor:
        """A^T w, in w's dtype; for w that R has selected already it is (R A)^T w."""
        return self.transpose(w.to(self.dtype or w.dtype), *self.captures).to(w.dtype)


def conjugate_gradient_least_squares(problem: Problem) -> Tensor:
    """v at damping 0, by CGLS from zero: the solution of minimum norm.

    Every sample is frozen once its gradient is down to what rounding makes of its residual,
    ``eps sigma ||r||``: going on would change nothing, or build up noise without bound where
    b is mostly out of A's range.
    """
    dot = partial(group_dot, groups=problem.groups)
    x, r, p = problem.zero, problem.b, torch.zeros_like(problem.zero)
    cost = dot(r, r)
    gamma, largest, top, alive = *(torch.zeros_like(cost) for _ in range(3)), torch.ones_like(cost)
    eps = torch.finfo(r.dtype).eps
    for _ in range(problem.steps):
        s = problem.back(r)
        new = dot(s, s)
        p = plus(s, new / nonzero(gamma) * (gamma > 0), p)
        q = problem.image(p)
        image = dot(q, q)
        largest, top = torch.maximum(largest, image / nonzero(dot(p, p))), torch.maximum(top, new)
        rounding = torch.maximum((ROUNDING * eps) ** 2 * largest * cost, top * eps**3)
        alive = alive * ((new > rounding) & (image > 0))
        alpha = torch.where(alive > 0, new / torch.where(alive > 0, image, 1.0), 0.0)
        x, r = plus(x, alpha, p), plus(r, -alpha, q)
        cost, gamma = (cost - alpha * new).clamp(min=0), new
    return x


def bidiagonal_least_squares(problem: Problem) -> tuple[Tensor, Tensor]:
    """(v, sigma_max [N]) by LSQR with its basis kept: A^T once a step, A once less.

    Golub and Kahan's bidiagonalisation ``A V = U B`` (Paige and Saunders, ACM TOMS 1982) builds
    one Krylov space, whatever the damping.  sigma_max is B's largest singular value, a lower bound
    in a few steps; the solution is V y with ``(B^T B + damping sigma_max^2) y = B^T U^T b``.

    The last beta, the length of what the last vector's image has outside of the space, would cost
    A once more and only damps the last coefficient.  The beta before it stands in for it: maps are
    as near to the converged ones (docs/benchmarks.md), half a step cheaper.

    No vector is made a unit vector by a pass of its own: u is kept as its length `size` times the
    unit vector, v as its length `alpha`, and the lengths go into the numbers of the next sum.  An
    alpha below the rounding of the largest alpha or beta is 0, and so is all after it.
    """
    length = partial(group_norm, groups=problem.groups)
    u = problem.b
    first = size = length(u)
    alpha, beta, largest = torch.zeros_like(first), torch.ones_like(first), torch.zeros_like(first)
    basis: list[Tensor] = []
    alphas: list[Tensor] = []
    betas: list[Tensor] = []
    for step in range(problem.steps):
        share = reciprocal(size)
        # of unit vectors: alpha_k v_k = A^T u_k - beta_k v_(k-1)
        v = group_times(share * (beta > 0), problem.back(u))
        v = plus_(v, -beta * reciprocal(alpha), basis[-1]) if basis else v
        alpha = length(v)
        largest = torch.maximum(largest, alpha)
        alpha = alpha * (alpha > ROUNDING * torch.finfo(v.dtype).eps * largest)
        basis.append(v)
        alphas.append(alpha)
        if step and step == problem.steps - 1:
            betas.append(beta)
            break
        # and alpha_k beta_(k+1) u_(k+1) = alpha_k (A v_k - alpha_k u_k)
        u = plus(problem.image(v), -alpha * alpha * share, u)
        size = length(u)
        beta = size * reciprocal(alpha)
        largest = torch.maximum(largest, beta)
        betas.append(beta)
    diagonal = torch.stack(alphas, -1)
    y, sigma = _solve_bidiagonal(diagonal, torch.stack(betas, -1), first, problem.damping)
    return _combined(y * reciprocal(diagonal), basis), sigma


def _combined(y: Tensor, basis: Sequence[Tensor]) -> Tensor:
    """sum_k y_k v_k, for y [N, G, K] and K vectors."""
    first, *others = _columns(y)
    x = group_times(first, basis[0])
    for c, v in zip(others, basis[1:], strict=True):
        x = plus_(x, c, v)
    return x


def _solve_bidiagonal(
    alphas: Tensor, betas: Tensor, first: Tensor, damping: float
) -> tuple[Tensor, Tensor]:
    """(y [N, G, K], sigma_max [N]), the largest of all groups.

    ``(B^T B + damping sigma_max^2) y = B^T first e_1`` for the lower bidiagonal B of `alphas`, its
    diagonal, and `betas` [N, G, K].
    """
    known = torch.cat([betas[..., :-1], torch.zeros_like(betas[..., -1:])], -1)
    off = alphas[..., 1:] * betas[..., :-1]
    square = _largest_eigenvalue(alphas * alphas + known * known, off)
    square = square.amax(1, keepdim=True).clamp(min=0)
    diagonal = alphas * alphas + betas * betas
    shifted = _columns(diagonal + (damping * square).unsqueeze(-1))
    y = torch.stack(_solve_tridiagonal(shifted, _columns(off), alphas[..., 0] * first), -1)
    return y, square.squeeze(1).sqrt()


def _columns(x: Tensor) -> list[Tensor]:
    """The entries along the last dimension; torch.export can't save an empty unbind."""
    return [x[..., k] for k in range(x.shape[-1])]


def _solve_tridiagonal(
    diagonal: Sequence[Tensor], off: Sequence[Tensor], first: Tensor
) -> list[Tensor]:
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


def _largest_eigenvalue(diagonal: Tensor, off: Tensor) -> Tensor:
    """Of symmetric tridiagonal matrices [..., K], [..., K - 1], by repeated squaring."""
    if not off.shape[-1]:  # squared in a row, a single number makes compilers write all its powers
        return diagonal[..., 0]
    t = torch.diag_embed(diagonal) + torch.diag_embed(off, 1) + torch.diag_embed(off, -1)
    power = t / nonzero(t.abs().amax((-2, -1), keepdim=True))
    for _ in range(max(7, diagonal.shape[-1] // 2)):  # more steps resolve closer eigenvalues
        power = power @ power
        power = power / nonzero(power.abs().amax((-2, -1), keepdim=True))
    u = power[..., :1]  # the start is the first basis vector
    return ((u * (t @ u)).sum((-2, -1))) / nonzero((u * u).sum((-2, -1)))


def group_dot(x: Tensor, y: Tensor, groups: int) -> Tensor:
    """<x, y> per sample and group of channels, [N, G]."""
    apart = (x * y).reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])  # a view
    return apart.sum(tuple(range(2, apart.dim())))


def group_norm(x: Tensor, groups: int) -> Tensor:
    """||x|| per sample and group of channels, [N, G]."""
    if groups == 1:
        return norm(x).unsqueeze(1)
    return group_dot(x, x, groups).sqrt()  # of channels last, ten times as fast as torch's norm


def group_times(a: Tensor, x: Tensor) -> Tensor:
    """Each sample's group of x multiplied by its number of a [N, G]."""
    return _as_factor(a, x) * x


def plus(x: Tensor, a: Tensor, y: Tensor) -> Tensor:
    """x + a y, for each sample's group its number of a [N, G]; one pass over memory."""
    return torch.addcmul(x, _as_factor(a, y), y)


def plus_(x: Tensor, a: Tensor, y: Tensor) -> Tensor:
    """The same in x's own memory, for what nobody else holds."""
    return x.addcmul_(_as_factor(a, y), y)


def _as_factor(a: Tensor, x: Tensor) -> Tensor:
    """a [N, G] in a shape that multiplies x."""
    groups = a.shape[1]
    each = a if groups == 1 else a.repeat_interleave(x.shape[1] // groups, 1)
    return each.reshape(*each.shape, *(1,) * (x.dim() - 2))


def nonzero(x: Tensor) -> Tensor:
    """x with 0 replaced by 1, as a divisor."""
    return torch.where(x == 0, 1.0, x)


def norm(x: Tensor) -> Tensor:
    """||x|| per sample, [N]."""
    length: Tensor = torch.linalg.vector_norm(x, dim=tuple(range(1, x.dim())))
    return length


def reciprocal(x: Tensor) -> Tensor:
    """1 / x of lengths, 0 of 0."""
    return (x > 0) / at_least_tiny(x)


def at_least_tiny(x: Tensor) -> Tensor:
    """x as a divisor: not below the smallest normal number."""
    return x.clamp(min=torch.finfo(x.dtype).tiny)
