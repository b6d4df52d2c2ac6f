"""Least squares in a Krylov space: per sample, a fixed number of steps, no control flow.

argmin_v  || A v - b ||^2  +  damping * sigma_max(A)^2 * || v ||^2
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from inspect import signature
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

Map = Callable[..., Tensor]
Tensors = tuple[Tensor, ...]

ROUNDING = 4  # relative rounding error of A^T r, in eps; measured, with a margin


def _compiled_once(step: Any) -> Any:
    """Marks a step that `torch.compile` compiles once for all steps; no change elsewhere.

    Nor in an export that is not strict: there torch looks up steps that it compiled before, and
    asking whether one fits makes a constant of a free batch size.
    """
    mark = getattr(torch.compiler, "nested_compile_region", None)
    if mark is None:
        return step
    many = "max_reuse_entries" in signature(mark).parameters
    marked = mark(step, max_reuse_entries=4096) if many else mark(step)

    @wraps(step)
    def run(*args: Any) -> Any:
        free = torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling()
        return step(*args) if free else marked(*args)

    return run


class Operator(nn.Module):
    """A and A^T, as the steps of a solver take them.

    A step is given a module, its `kind`, and tensors: then `torch.compile` traces it once for
    all steps and all operators of a kind (its own guards don't tell one `linear` from another).

    Args:
        linear, transpose: ``linear(v, *captures) = A v``, ``transpose(w, *captures) = A^T w``.
        groups: of channels that A does not mix, on both sides; each is solved by itself.
        whole: in float32 problems A and A^T take and give bfloat16.

    Attributes:
        kind: equal where the graphs of A and A^T, groups and whole are, whatever the captures.
    """

    def __init__(self, linear: Map, transpose: Map, groups: int = 1, whole: bool = False) -> None:
        super().__init__()
        self.linear, self.transpose = linear, transpose
        self.groups, self.whole = groups, whole
        self.kind = _kind(f"{groups} {whole}", linear, transpose)

    def image(self, v: Tensor, rows: Tensor | None, captures: Tensors) -> Tensor:
        """rows A v, in v's dtype; `rows` None: all 1."""
        w = self.linear(v.to(self.inner(v.dtype)), *captures).to(v.dtype)
        return w if rows is None else w * rows

    def back(self, w: Tensor, rows: Tensor | None, captures: Tensors) -> Tensor:
        """(rows A)^T w, in w's dtype."""
        w = w if rows is None else w * rows
        return self.transpose(w.to(self.inner(w.dtype)), *captures).to(w.dtype)

    def inner(self, dtype: torch.dtype) -> torch.dtype:
        """What A and A^T take."""
        return torch.bfloat16 if self.whole and dtype == torch.float32 else dtype


def _kind(head: str, *maps: Map) -> int:
    """A number of 48 bits of what graphs compute; a random one of what is no graph of functions."""
    text = [head]
    for made in maps:
        nodes = list(made.graph.nodes) if isinstance(made, fx.GraphModule) else []
        if not nodes or any(node.op in ("get_attr", "call_module") for node in nodes):
            return secrets.randbits(48)
        place = {node: f"%{i}" for i, node in enumerate(nodes)}
        for node in nodes:
            target = "" if node.op == "placeholder" else node._pretty_print_target(node.target)
            found = map_arg((node.args, node.kwargs), place.__getitem__)
            text.append(f"{node.op} {target} {found}")
    return int.from_bytes(hashlib.sha256("\n".join(text).encode()).digest()[:6], "big")


@dataclass(frozen=True)
class Problem:
    """argmin_v ||rows (A v) - b||^2 + damping sigma_max(rows A)^2 ||v||^2, groups apart.

    `zero` has the shape of v.
    """

    operator: Operator
    b: Tensor
    zero: Tensor
    damping: float
    steps: int
    rows: Tensor | None = None
    captures: Tensors = ()


def conjugate_gradient_least_squares(
    problem: Problem, sigma: Tensor | None
) -> tuple[Tensor, Tensor]:
    """(v, ||A v - b|| [N]) by CGLS from zero, for a known sigma_max (None at damping 0).

    Every sample is frozen once its gradient is down to what rounding makes of its residual,
    ``eps sigma ||r||``: going on would change nothing, or build up noise without bound where
    b is mostly out of A's range.  At damping 0 this is the minimum-norm least-squares solution.
    """
    operator = problem.operator
    cost = group_dot(problem.b, problem.b, operator.groups)
    shift = zero = torch.zeros_like(cost)
    if problem.damping and sigma is not None:
        shift = problem.damping * (sigma * sigma).to(cost.dtype).reshape(-1, 1) + zero
    p, gamma, largest, top = (torch.zeros_like(x) for x in (problem.zero, cost, cost, cost))
    state = (problem.zero, problem.b, p, gamma, cost, largest, top, torch.ones_like(cost))
    for _ in range(problem.steps):
        state = _conjugate_gradient_step(
            operator, operator.kind, problem.rows, problem.captures, shift, *state
        )
    return state[0], norm(state[1])


@_compiled_once
def _conjugate_gradient_step(
    operator: Operator,
    kind: int,  # only compared: see `Operator`
    rows: Tensor | None,
    captures: Tensors,
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
    dot = partial(group_dot, groups=operator.groups)
    s = plus(operator.back(r, rows, captures), -shift, x)
    new = dot(s, s)
    p = plus(s, new / nonzero(gamma) * (gamma > 0), p)
    q = operator.image(p, rows, captures)
    image, size = dot(q, q), dot(p, p)
    eps = torch.finfo(s.dtype).eps
    largest, top = torch.maximum(largest, image / nonzero(size)), torch.maximum(top, new)
    curvature = image + shift * size
    rounding = torch.maximum((ROUNDING * eps) ** 2 * largest * cost, top * eps**3)
    alive = alive * ((new > rounding) & (curvature > 0))
    alpha = torch.where(alive > 0, new / torch.where(alive > 0, curvature, 1.0), 0.0)
    cost = (cost - alpha * new).clamp(min=0)
    x, r = plus(x, alpha, p), plus(r, -alpha, q)
    return x, r, p, new, cost, largest, top, alive


def bidiagonal_least_squares(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """(v, ||A v - b|| [N], sigma_max [N]) where that is not known: LSQR with its basis kept.

    Golub and Kahan's bidiagonalisation ``A V = U B`` (Paige and Saunders, ACM TOMS 1982) builds
    one Krylov space, whatever the damping.  sigma_max is B's largest singular value, the
    solution V y with ``(B^T B + damping sigma_max^2) y = B^T U^T b``: the vector that CGLS would
    reach in as many steps, had it known sigma_max before.  What a few steps find of sigma_max is a
    lower bound.
    """
    operator = problem.operator
    first = group_norm(problem.b, operator.groups)
    u = group_times(reciprocal(first), problem.b)
    one, none = torch.ones_like(first), torch.zeros_like(first)
    state = u, problem.zero, one, none, one.clone(), none.clone()
    basis: list[Tensor] = []
    alphas: list[Tensor] = []
    betas: list[Tensor] = []
    for _ in range(problem.steps):
        state = _bidiagonal_step(operator, operator.kind, problem.rows, problem.captures, *state)
        _, v, _, alpha, beta, _ = state
        basis.append(v)
        alphas.append(alpha)
        betas.append(beta)
    diagonal = torch.stack(alphas, -1)
    y, left, sigma = _solve_bidiagonal(diagonal, torch.stack(betas, -1), first, problem.damping)
    return _combined(y * reciprocal(diagonal), *basis), left, sigma


@_compiled_once
def _combined(y: Tensor, *basis: Tensor) -> Tensor:
    """sum_k y_k v_k, for y [N, G, K] and K vectors."""
    first, *others = y.unbind(-1)
    x = group_times(first, basis[0])
    for c, v in zip(others, basis[1:], strict=True):
        x = plus_(x, c, v)
    return x


@_compiled_once
def _solve_bidiagonal(
    alphas: Tensor, betas: Tensor, first: Tensor, damping: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(y [N, G, K], ||B y - first e_1|| [N], sigma_max [N]), all groups' residuals together.

    ``(B^T B + damping sigma_max^2) y = B^T first e_1`` for the lower bidiagonal B of `alphas`, its
    diagonal, and `betas` [N, G, K].
    """
    diagonal = alphas * alphas + betas * betas
    off = alphas[..., 1:] * betas[..., :-1]
    square = _largest_eigenvalue(diagonal, off).amax(1, keepdim=True).clamp(min=0)
    shifted = (diagonal + (damping * square).unsqueeze(-1)).unbind(-1)
    y = torch.stack(_solve_tridiagonal(shifted, off.unbind(-1), alphas[..., 0] * first), -1)
    start = first - alphas[..., 0] * y[..., 0]
    parts = torch.cat(
        [
            start.unsqueeze(-1),
            alphas[..., 1:] * y[..., 1:] + betas[..., :-1] * y[..., :-1],
            -betas[..., -1:] * y[..., -1:],
        ],
        -1,
    )
    return y, parts.flatten(1).norm(dim=1), square.squeeze(1).sqrt()


@_compiled_once
def _bidiagonal_step(
    operator: Operator,
    kind: int,  # only compared: see `Operator`
    rows: Tensor | None,
    captures: Tensors,
    u: Tensor,
    v: Tensor,
    size: Tensor,
    alpha: Tensor,
    beta: Tensor,
    largest: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The next size u, alpha v, size = alpha beta, alpha and beta.

    Neither vector is made a unit vector by a pass of its own: its length goes into the numbers of
    the next sum.  An alpha below the rounding of the largest alpha or beta is 0, and all after it.
    """
    norm = partial(group_norm, groups=operator.groups)
    share = reciprocal(size)
    v = group_times(-beta * reciprocal(alpha), v)
    v = plus_(v, share * (beta > 0), operator.back(u, rows, captures))
    alpha = norm(v)
    largest = torch.maximum(largest, alpha)
    alpha = alpha * (alpha > ROUNDING * torch.finfo(v.dtype).eps * largest)
    u = plus(operator.image(v, rows, captures), -alpha * alpha * share, u)
    size = norm(u)
    beta = size * reciprocal(alpha)
    return u, v, size, alpha, beta, torch.maximum(largest, beta)


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
    t = torch.stack(diagonal, -1), torch.stack(off, -1)[..., :-1]
    return _largest_eigenvalue(*t).clamp(min=0).sqrt()


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
    return _spread(a, x) * x


def plus(x: Tensor, a: Tensor, y: Tensor) -> Tensor:
    """x + a y, for each sample's group its number of a [N, G]; one pass over memory."""
    return torch.addcmul(x, _spread(a, y), y)


def plus_(x: Tensor, a: Tensor, y: Tensor) -> Tensor:
    """The same in x's own memory, for what nobody else holds."""
    return x.addcmul_(_spread(a, y), y)


def _spread(a: Tensor, x: Tensor) -> Tensor:
    """a [N, G] in a shape that multiplies x."""
    groups = a.shape[1]
    each = a if groups == 1 else a.repeat_interleave(x.shape[1] // groups, 1)
    return each.reshape(*each.shape, *(1,) * (x.dim() - 2))


@_compiled_once
def row_by_row(x: Tensor) -> Tensor:
    """A copy that is contiguous in memory: far from free where x is laid out channels last."""
    return x.clone(memory_format=torch.contiguous_format)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """<a, b> per sample, [N]."""
    return (a * b).sum(tuple(range(1, a.dim())))


def times(a: Tensor, x: Tensor) -> Tensor:
    """Each sample of x multiplied by its number of a [N]."""
    return a.reshape(-1, *(1,) * (x.dim() - 1)) * x


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
