"""`check_rule`: the laws that a rule must keep, tried on example calls in float64.

Each law yields what is wrong at a captured point, in words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from naflow_fx.rules.contract import Labels, Rule, parameters
from naflow_fx.rules.laws.point import (
    DAMPING,
    Case,
    Findings,
    Point,
    applied,
    differ,
    gap,
    inner,
    results,
    rows,
    shaped,
    tensors,
)
from naflow_fx.rules.laws.statements import gating, mixes, swap, view

__all__ = ["LAWS", "Case", "Law", "check_law", "check_rule"]

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def check_rule(rule: Rule, cases: Sequence[Case]) -> list[str]:
    """Tries every law that is for `rule` on every case; what is broken, in words.

    An empty list: nothing found.  Whatever a function of the rule raises is a finding, too.
    """
    if not cases:
        return [f"{rule.name}: no cases"]
    names = [name for name, law in LAWS.items() if law.applies(rule)]
    return [found for case in cases for name in names for found in check_law(rule, case, name)]


def check_law(rule: Rule, case: Case, name: str) -> list[str]:
    """What the law of that name finds at one case."""
    where = f"{rule.name} ({case.id}): {name}"
    try:
        return [f"{where}: {finding}" for finding in LAWS[name].check(Point(rule, case))]
    except Exception as error:
        return [f"{where}: {type(error).__name__}: {error}"]


@dataclass(frozen=True)
class Law:
    """A law, and the rules that it is for, told from their fields."""

    check: Callable[[Point], Findings]
    applies: Callable[[Rule], bool] = lambda rule: True


def _linear(p: Point) -> Findings:
    """A (2 u - 3 v) = 2 A u - 3 A v, in the output's shape."""
    u, v = p.randoms(1), p.randoms(101)
    found = p.linear([2 * a - 3 * b for a, b in zip(u, v, strict=True)])
    yield from shaped("A v", found, p.output)
    yield from differ("A (2 u - 3 v)", found, "2 A u - 3 A v", 2 * p.linear(u) - 3 * p.linear(v))


def _adjoint(p: Point) -> Findings:
    """<A v, w> = <v, A^T w>, with A^T w in the operands' shapes."""
    v, w = p.randoms(1), p.random(p.output, 2)
    back = p.transpose(w)
    for found, x in zip(back, p.vectors, strict=True):
        yield from shaped("A^T w", found, x)
    right = sum(inner(a, b) for a, b in zip(v, back, strict=True))
    assert isinstance(right, Tensor)
    yield from differ("<A v, w>", inner(p.linear(v), w), "<v, A^T w>", right)


def _masks(p: Point) -> Findings:
    """A v and A^T w are the same where captured masks come as numbers 0 and 1."""
    v, w = p.randoms(1), p.random(p.output, 2)
    wanted = [p.linear(v), *p.transpose(w)]
    kept = {name: p.state[name] for name in p.rule.captures}
    flags = {k: x for k, x in kept.items() if isinstance(x, Tensor) and x.dtype == torch.bool}
    p.state |= {name: x.to(w.dtype) for name, x in flags.items()}
    found = [p.linear(v), *p.transpose(w)]
    for name, a, b in zip(("A v", *["A^T w"] * len(found)), found, wanted, strict=False):
        yield from differ(f"{name} with numbers for masks", a, f"{name} with masks", b)


def _affine(p: Point) -> Findings:
    """A x + c = f(x) at the captured point; `has_shift` tells whether there is a c."""
    c = p.shift()
    found = p.linear(p.vectors) if c is None else p.linear(p.vectors) + c
    yield from differ("A x + c", found, "f(x)", p.output)
    if p.rule.has_shift is not None and p.call(p.rule.has_shift) != (c is not None):
        yield f"has_shift says {c is None}, but c is {'None' if c is None else 'there'}"


def _jacobian(p: Point) -> Findings:
    """A is autograd's Jacobian of f column by column, control operands held constant.

    Not for a rule that has its own `vjp` and no control operand: there A is a secant, a gate or
    a captured scale, which `affine` pins, and the derivative is `vjp`'s.
    """
    names = list(p.differentiable()) if p.rule.variadic else [p.first]
    wanted = torch.cat([p.jacobian(name) for name in names], 2)
    yield from differ("A", p.matrix(), "the Jacobian", wanted)


def _vjp(p: Point) -> Findings:
    """`vjp`, or `transpose` where there is none, is autograd's, for every operand."""
    w, operands = p.random(p.output, 3), p.differentiable()
    found = p.vjp(w)
    for name, x in operands.items():
        got = found.get(name)
        if got is None:
            yield f"no derivative by {name}"
            continue
        leaf = x.detach().requires_grad_()
        y = p.forward({name: leaf})
        wanted = torch.zeros_like(x)
        if y.requires_grad:  # else it is held constant
            (wanted,) = torch.autograd.grad(y, leaf, w)
        yield from differ(f"the derivative by {name}", got, "autograd's", wanted)


def _moore_penrose(p: Point) -> Findings:
    """A P A = A, P A P = P, A P and P A symmetric; P z the undamped `inverse` of z + c."""
    a, n, z = p.matrix(), p.inverse_matrix(), p.random(p.output, 4)
    found = p.inverse(z)
    yield from shaped("the inverse", found, p.vectors[0])
    yield from differ("the inverse", found, "linear in z - c", applied(n, z, found))
    yield from differ("A P A", a @ n @ a, "A", a)
    yield from differ("P A P", n @ a @ n, "P", n)
    yield from differ("A P", a @ n, "(A P)^T", (a @ n).mT)
    yield from differ("P A", n @ a, "(P A)^T", (n @ a).mT)


def _damped(p: Point) -> Findings:
    """(A^T A + damping max sigma^2)^-1 A^T z, the maximum per sample; or exact at any damping."""
    a, z = p.matrix(), p.random(p.output, 5)
    found = p.inverse(z, DAMPING)
    size = DAMPING * torch.linalg.matrix_norm(a, 2) ** 2
    shift = torch.where(size > 0, size, 1.0)[:, None, None] * torch.eye(a.shape[2], dtype=a.dtype)
    if gap(found, applied(torch.linalg.pinv(a), z, found)):
        wanted = applied(torch.linalg.solve(a.mT @ a + shift, a.mT), z, found)
        yield from differ("the damped inverse", found, "the ridge solution", wanted)


def _remainder(p: Point) -> Findings:
    """Per operand i of a variadic rule: A_i^+ (z - c - the sum of the others' A_j v_j)."""
    z, values, c = p.random(p.output, 6), p.randoms(7), p.shift()
    for k, index in enumerate(p.active):
        found = p.remainder(z, values, k)
        others = p.linear([torch.zeros_like(v) if j == k else v for j, v in enumerate(values)])
        rest = z - others if c is None else z - others - c
        wanted = applied(torch.linalg.pinv(p.block(k)), rest, values[k])
        yield from differ(f"what remains for operand {index}", found, "least squares", wanted)


def _function_inverse(p: Point) -> Findings:
    """f(inverse(z)) is z, or z clipped to what the sample's output spans; finite for any z."""
    other, _ = p.case.draw(p.first, seed=1)
    z = p.forward(other)
    dims = tuple(range(1, z.dim()))
    low, high = p.output.amin(dims, keepdim=True), p.output.amax(dims, keepdim=True)
    again = p.forward({p.first: p.call(p.rule.inverse, z)})
    if gap(again, z):
        clipped = torch.minimum(torch.maximum(z, low), high)
        yield from differ("f(inverse(z))", again, "clip(z)", clipped)
    if not bool(p.call(p.rule.inverse, 100 * p.random(z, 9)).isfinite().all()):
        yield "the inverse of values that f never takes is not finite"


def _support(p: Point) -> Findings:
    """`support`, or `transpose` of patterns, counts who reads a neuron: P^T u, P = (A != 0).

    A neuron that one output reads more than once (a reflected border) may count for more.
    """
    u = (p.random(p.output, 11) > 0).to(p.output.dtype)
    found = torch.cat([rows(part) for part in p.support(u)], 1)
    wanted = applied((p.matrix() != 0).to(u.dtype).mT, u, found)
    if bool(((found > 0.5) != (wanted > 0.5)).any()):
        yield "the support is not where A is not 0"
    if bool((found < wanted - 0.5).any()) or gap(found, found.round()):
        yield "the support doesn't count every output that reads a neuron"


def _diagonal(p: Point) -> Findings:
    """`diagonal` is A's diagonal, and A has nothing else; not where f changes the shape."""
    if p.output.shape == p.vectors[0].shape:
        d = p.call(p.rule.diagonal) * torch.ones_like(p.output)
        yield from differ("A", p.matrix(), "diag(d)", torch.diag_embed(rows(d)))


def _off(p: Point) -> Findings:
    """Nothing positive is `off`."""
    x, found = p.vectors[0], p.call(p.rule.off)
    yield from shaped("off", found, x)
    if bool((x[found] > 0).any()):
        yield "off holds where the operand is positive"


def _scaled(p: Point) -> Findings:
    """With the kernel that `scaled` makes, A v is d times what it was; d per channel."""
    (v,) = p.vectors[:1]
    plain = p.linear([v])
    channels = (1, plain.shape[1], *(1,) * (plain.dim() - 2))
    scale = p.random(plain[:1], 30).flatten()[: plain.shape[1]].reshape(channels)
    assert p.rule.scaled is not None
    kernel = p.rule.scaled(p.state[p.rule.kernel], scale)
    found = p.call(p.rule.linear, v, **{p.rule.kernel: kernel})
    yield from differ("A v with the scaled kernel", found, "d A v", scale * plain)


def _groups(p: Point) -> Findings:
    """A of a vector in one group of channels stays in that group."""
    count, v = int(p.call(p.rule.groups)), p.vectors[0]
    if v.shape[1] % count:
        yield f"{v.shape[1]} channels can't be {count} groups"
        return
    for g in range(count):
        own = torch.zeros_like(v)
        own.chunk(count, 1)[g].copy_(v.chunk(count, 1)[g])
        image = p.linear([own])
        others = [part for k, part in enumerate(image.chunk(count, 1)) if k != g]
        if image.shape[1] % count or any(part.any() for part in others):
            yield f"group {g} of {count} is mixed with others"


def _batch(p: Point) -> Findings:
    """What a batch gives is what its samples give alone: f, captures, A, A^T, c, inverse, vjp."""
    v, w = p.randoms(10), p.random(p.output, 20)
    together = results(p, v, w)
    for sample in range(len(p.output)):
        one = slice(sample, sample + 1)
        alone = results(Point(p.rule, p.case, sample=sample), [x[one] for x in v], w[one])
        for name, value in together.items():
            for a, b in zip(tensors(value), tensors(alone[name]), strict=True):
                part = a if a.shape == b.shape else a[one]
                yield from differ(f"{name} of sample {sample} in a batch", part, "alone", b)


def _dtype(p: Point) -> Findings:
    """In lower precision results are finite and keep the dtype; captures may have another."""
    for wanted in DTYPES:
        try:
            q = Point(p.rule, p.case, wanted)
        except RuntimeError as error:
            if "not implemented for" in str(error):
                continue  # torch has no such operator here
            raise
        found = results(q, q.randoms(10), q.random(q.output, 20))
        del found["captures"]
        for name, leaf in ((name, x) for name, value in found.items() for x in tensors(value)):
            if leaf.dtype != wanted:
                yield f"{name} is {leaf.dtype} where the input is {wanted}"
            if not bool(leaf.isfinite().all()):
                yield f"{name} is not finite in {wanted}"


def _labels(p: Point) -> Findings:
    """One dimension letter for each dimension of the output, the batch in front."""
    rank = max(x.dim() for x in p.vectors)
    before: Labels = ("N", "C", "S", "S", "S")[:rank]
    after = before if p.rule.labels is None else tuple(p.call(p.rule.labels, before))
    if len(after) != p.output.dim() or after[0] != "N":
        yield f"{after} for an output of {p.output.dim()} dimensions"


def _pure(p: Point) -> Findings:
    """No function writes into what it is given."""
    v, w = p.randoms(10), p.random(p.output, 20)
    given = [*v, w, *tensors(p.state)]
    copies = [x.clone() for x in given]
    results(p, v, w)
    if not all(map(torch.equal, given, copies)):
        yield "a function changes its arguments in place"


LAWS: dict[str, Law] = {
    "linear": Law(_linear),
    "adjoint": Law(_adjoint),
    "masks": Law(_masks, lambda rule: bool(rule.captures)),
    "affine": Law(_affine),
    "jacobian": Law(_jacobian, lambda rule: rule.vjp is None or bool(rule.control)),
    "vjp": Law(_vjp),
    "Moore-Penrose": Law(
        _moore_penrose,
        lambda rule: bool(rule.inverse) and not rule.variadic and not rule.function_inverse,
    ),
    "damped": Law(
        _damped, lambda rule: rule.inverse is not None and "damping" in parameters(rule.inverse)
    ),
    "remainder": Law(_remainder, lambda rule: rule.inverse is not None and rule.variadic),
    "function inverse": Law(_function_inverse, lambda rule: rule.function_inverse),
    "support": Law(_support),
    "diagonal": Law(_diagonal, lambda rule: rule.diagonal is not None),
    "off": Law(_off, lambda rule: rule.off is not None),
    "scaled": Law(_scaled, lambda rule: rule.scaled is not None),
    "groups": Law(_groups, lambda rule: rule.groups is not None),
    "batch": Law(_batch),
    "dtype": Law(_dtype),
    "labels": Law(_labels),
    "pure": Law(_pure),
    "gating": Law(gating, lambda rule: bool(rule.gating)),
    "view": Law(view, lambda rule: rule.view or rule.regroups),
    "mixes": Law(mixes, lambda rule: rule.mixes is not None),
    "swap": Law(swap, lambda rule: rule.swap is not None),
}
