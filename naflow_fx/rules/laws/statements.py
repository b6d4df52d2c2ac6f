"""Laws of what a rule says of its operator in words: gating, view, mixes, swap."""

from __future__ import annotations

import torch
from torch import Tensor

from naflow_fx.rules.laws.point import Findings, Point, differ, rows


def gating(p: Point) -> Findings:
    """What squashes is bounded, f(1e6 x) = f(1e9 x); what carries affine, f(x + d) - f(x) = A d."""
    x, d = p.vectors, p.randoms(12)
    if p.rule.gating == "squashes":
        far, farther = (p.forward({p.first: size * x[0]}) for size in (1e6, 1e9))
        yield from differ("f(1e6 x)", far, "f(1e9 x)", farther)
        return
    names = list(p.differentiable()) if p.rule.variadic else [p.first]
    moved = p.forward({name: a + b for name, a, b in zip(names, x, d, strict=True)})
    yield from differ("f(x + d) - f(x)", moved - p.output, "A d", p.linear(d))


def view(p: Point) -> Findings:
    """Every number of a view is one of the input's, or a constant; of `regroups` all, in order."""
    a = p.matrix()
    if bool(((a != 0) & (a != 1)).any()) or bool((a.sum(2) > 1).any()):
        yield "a number of the output is not one of the input's"
    if p.rule.regroups:
        yield from differ("f(x), flattened", rows(p.output), "x, flattened", rows(p.vectors[0]))


def mixes(p: Point) -> Findings:
    """Samples are apart, and so is what lies along another dimension where `mixes` says so."""
    if words := p.call(p.rule.mixes, at=0, rank=p.vectors[0].dim()):
        yield f"mixes says {words!r} of samples that are apart"
    read = p.matrix() != 0
    for at in range(1, p.vectors[0].dim()):
        if not p.call(p.rule.mixes, at=at, rank=p.vectors[0].dim()):
            places = torch.cat([_places(x, at) for x in p.vectors])
            entries = [read[:, :, places == k].any(2) for k in range(int(places.max()) + 1)]
            if bool((torch.stack(entries).sum(0) > 1).any()):
                yield f"a number reads several entries of dimension {at}, which mixes does not say"


def _places(x: Tensor, at: int) -> Tensor:
    """Where each number of a sample of x [N, ...] lies along a dimension, flat."""
    along = torch.arange(x.shape[at]).reshape(-1, *(1,) * (x.dim() - at - 1))
    return along.expand(x.shape[1:]).flatten()


def swap(p: Point) -> Findings:
    """With operand and gate in each other's place, f(x) is the same."""
    assert p.rule.swap is not None
    if all(p.arguments[name] is not None for name in p.rule.operands):
        other = p.rule.forward(**p.rule.swap(dict(p.arguments)))
        yield from differ("the swapped f(x)", other, "f(x)", p.output)
