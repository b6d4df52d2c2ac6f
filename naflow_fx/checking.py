"""The laws that a rule must keep, and `check_rule`, which tries them on example calls.

A captured operator is small here: its matrix A is written out, per sample, in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils._pytree import tree_leaves, tree_map

from naflow_fx.rule import Arguments, Function, Labels, Rule, parameters

TOLERANCE = 1e-9  # of float64 results, relative to the largest
DAMPING = 0.1
Vectors = list[Tensor]


@dataclass(frozen=True)
class Case:
    """One example call of an operator.

    Attributes:
        id: a few words: what is special about it.
        inputs: the operands, made from a generator: one tensor [N, ...] (the rule's first
            operand), a list of them (a variadic rule's), or a dictionary by name.  The batch
            leads, two samples or more; an operand that the model holds as a constant belongs
            into `arguments`.
        arguments: ``forward``'s other arguments; a function among them is called with the
            generator.
        active: variadic rules: which entries are activations; None: all tensors.
    """

    id: str
    inputs: Callable[[Generator], Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    active: tuple[int, ...] | None = None

    def make(
        self, operand: str = "input", dtype: torch.dtype = torch.float64, seed: int = 0
    ) -> Arguments:
        """All arguments of ``forward``, the same for the same seed; `operand`: the first one."""
        inputs, others = self.draw(operand, dtype, seed)
        return inputs | others

    def draw(self, operand: str, dtype: torch.dtype, seed: int) -> tuple[Arguments, Arguments]:
        """The operands, which have a batch, and the other arguments."""
        generator = torch.Generator().manual_seed(seed)
        made = self.inputs(generator)
        inputs = made if isinstance(made, dict) else {operand: made}
        others = {k: v(generator) if callable(v) else v for k, v in self.arguments.items()}

        def cast(value: Any) -> Any:
            floating = isinstance(value, Tensor) and value.is_floating_point()
            return value.to(dtype) if floating else value

        return tree_map(cast, inputs), tree_map(cast, others)


class Point:
    """A rule captured at a case: its functions by name, all but the vector filled in.

    Attributes:
        vectors: the activations that A acts on, one per invertible operand of a variadic rule.
        state: what the rule's functions may ask for, as the compiler offers it (see `Rule`).
    """

    def __init__(
        self,
        rule: Rule,
        case: Case,
        dtype: torch.dtype = torch.float64,
        sample: int | None = None,
    ) -> None:
        self.rule, self.first = rule, rule.operands[0]
        self.inputs, others = case.draw(self.first, dtype, seed=0)
        if sample is not None:
            self.inputs = tree_map(_one(sample, _batch(self.inputs)), self.inputs)
        self.arguments = {k: v for k, v in (self.inputs | others).items() if k in _forward(rule)}
        self.output: Tensor = rule.forward(**self.arguments)
        defaults = {k: p.default for k, p in _forward(rule).items() if p.default is not p.empty}
        self.state: dict[str, Any] = defaults | self.arguments | {
            "output": self.output, "output_shape": _open(self.output), "damping": 0.0,
        }  # fmt: skip
        self.active = self._operands(case)
        self.captures = self._capture()

    def _operands(self, case: Case) -> tuple[int, ...]:
        given = self.arguments[self.first]
        if not self.rule.variadic:
            self.state["input_shape"] = _open(given)
            operands = enumerate(self.rule.operands)
            self.state["active"] = tuple(i for i, name in operands if name in self.inputs)
            self.vectors = [given]
            return (0,)
        tensors = tuple(i for i, x in enumerate(given) if isinstance(x, Tensor))
        active = tensors if case.active is None else case.active
        shapes = [_open(x) if i in active else tuple(getattr(x, "shape", ())) for i, x in
                  enumerate(given)]  # fmt: skip
        self.state |= {"active": active, "input_shapes": shapes}
        self.vectors = [given[i] for i in active]
        return active

    def _capture(self) -> tuple[Any, ...]:
        rule = self.rule
        if rule.capture is None:
            return ()
        captured = self.call(rule.capture)
        values = (captured,) if len(rule.captures) == 1 else tuple(captured)
        self.state |= dict(zip(rule.captures, values, strict=True))
        return values

    def call(self, function: Function, *leading: Any, **changed: Any) -> Any:
        """`function` of the leading arguments and whatever it asks for by name."""
        state = self.state | changed
        wanted = parameters(function)[len(leading) :]
        return function(*leading, **{name: state[name] for name in wanted if name in state})

    def linear(self, v: Sequence[Tensor | None]) -> Tensor:
        """A v."""
        result: Tensor = self.call(self.rule.linear, list(v) if self.rule.variadic else v[0])
        return result

    def transpose(self, w: Tensor) -> Vectors:
        """A^T w."""
        found = self.call(self.rule.transpose, w)
        return list(found) if self.rule.variadic else [found]

    def shift(self) -> Any:
        """c, 0 if there is none."""
        found = None if self.rule.shift is None else self.call(self.rule.shift)
        return 0.0 if found is None else found

    def inverse(self, z: Tensor, damping: float = 0.0) -> Tensor:
        """A^+ z of a rule with one operand; z without c."""
        result: Tensor = self.call(self.rule.inverse, z + self.shift(), damping=damping)  # type: ignore[arg-type]
        return result

    def vjp(self, w: Tensor) -> dict[str, Tensor | None]:
        """The derivative by operand: "input", "gate", or "0", "1", ... of a variadic rule."""
        found = self.call(self.rule.vjp or self.rule.transpose, w)
        if self.rule.variadic:
            return dict(zip(map(str, self.active), found, strict=True))
        return dict(zip(self.rule.operands, found if isinstance(found, tuple) else (found,),
                        strict=False))  # fmt: skip

    def differentiable(self) -> dict[str, Tensor]:
        """The operands that have a derivative, by the names of `vjp`."""
        if self.rule.variadic:
            return {str(i): self.arguments[self.first][i] for i in self.active}
        return {k: v for k, v in self.inputs.items() if v.is_floating_point()}

    def random(self, like: Tensor, seed: int) -> Tensor:
        """Normal random numbers of that shape and dtype."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like.dtype)

    def randoms(self, seed: int) -> Vectors:
        """A random vector for A."""
        return [self.random(x, seed + i) for i, x in enumerate(self.vectors)]

    def matrix(self) -> Tensor:
        """A, [N, q, p]; p runs over all operands."""
        blocks = [
            _columns(lambda v, i=i: self.linear([v if j == i else torch.zeros_like(x)
                                                 for j, x in enumerate(self.vectors)]), x)
            for i, x in enumerate(self.vectors)
        ]  # fmt: skip
        return torch.cat(blocks, 2)


# The laws.  Each yields what is wrong, in words.

Findings = Iterator[str]


def linear_is_linear(p: Point) -> Findings:
    """A (2 u - 3 v) = 2 A u - 3 A v, in the output's shape."""
    u, v = p.randoms(1), p.randoms(101)
    found = p.linear([2 * a - 3 * b for a, b in zip(u, v, strict=True)])
    yield from _shape("A v", found, p.output)
    yield from _differ("A (2 u - 3 v)", found, "2 A u - 3 A v", 2 * p.linear(u) - 3 * p.linear(v))


def adjoint(p: Point) -> Findings:
    """<A v, w> = <v, A^T w>, A^T w in the operands' shapes."""
    v, w = p.randoms(1), p.random(p.output, 2)
    back = p.transpose(w)
    for found, x in zip(back, p.vectors, strict=True):
        yield from _shape("A^T w", found, x)
    left = _inner(p.linear(v), w)
    right = torch.stack([_inner(a, b) for a, b in zip(v, back, strict=True)]).sum(0)
    yield from _differ("<A v, w>", left, "<v, A^T w>", right)


def affine(p: Point) -> Findings:
    """f(x) = A x + c at the captured point; `has_shift` tells whether there is a c."""
    c = p.shift()
    yield from _differ("A x + c", p.linear(p.vectors) + c, "f(x)", p.output)
    if p.rule.has_shift is not None:
        said, is_zero = p.call(p.rule.has_shift), isinstance(c, float) and c == 0
        if said == is_zero:
            yield f"has_shift says {said}, but c is {'0' if is_zero else 'not 0'}"


def jacobian(p: Point) -> Findings:
    """A is autograd's Jacobian of f, column by column, with the control operands held constant.

    Where a rule has its own `vjp` and no control operand, A is no derivative (a secant, a
    captured gate or statistics): `affine` pins it, and `vjp` its derivative.
    """
    wanted = torch.cat([_jacobian(p, x) for x in p.vectors], 2)
    yield from _differ("A", p.matrix(), "the Jacobian", wanted)


def vjp(p: Point) -> Findings:
    """`vjp` (or `transpose`) is autograd's, for every operand that has a derivative."""
    w = p.random(p.output, 3)
    given, found = p.differentiable(), p.vjp(w)
    leaves = {name: x.detach().requires_grad_() for name, x in given.items()}
    y = p.rule.forward(**_replaced(p, given, leaves))
    grads = torch.autograd.grad(y, list(leaves.values()), w, allow_unused=True)
    for (name, x), wanted in zip(given.items(), grads, strict=True):
        got = found.get(name)
        if got is None:
            yield f"no derivative for operand {name}"
            continue
        yield from _shape(f"the derivative by {name}", got, x)
        wanted = torch.zeros_like(x) if wanted is None else wanted
        yield from _differ(f"the derivative by {name}", got, "autograd's", wanted)


def moore_penrose(p: Point) -> Findings:
    """A P A = A, P A P = P, A P and P A symmetric, where P = `inverse`, undamped, of z - c."""
    a = p.matrix()
    n = _columns(lambda z: p.inverse(z), p.output)
    zero = p.inverse(torch.zeros_like(p.output))
    yield from _shape("the inverse", zero, p.vectors[0])
    yield from _differ("the inverse of c", zero, "0", torch.zeros_like(zero))
    z = p.random(p.output, 4)
    linear = (n @ z.flatten(1).unsqueeze(2)).reshape(zero.shape)
    yield from _differ("the inverse", p.inverse(z), "a linear function of z - c", linear)
    yield from _differ("A P A", a @ n @ a, "A", a)
    yield from _differ("P A P", n @ a @ n, "P", n)
    yield from _differ("A P", a @ n, "(A P)^T", (a @ n).mT)
    yield from _differ("P A", n @ a, "(P A)^T", (n @ a).mT)


def damped(p: Point) -> Findings:
    """The damped inverse is (A^T A + d max)^-1 A^T, the maximum sigma^2 per sample; or exact."""
    a, z = p.matrix(), p.random(p.output, 5)
    found = p.inverse(z, DAMPING)
    largest = torch.linalg.matrix_norm(a, 2) ** 2
    eye = (
        torch.eye(a.shape[2], dtype=a.dtype) * (DAMPING * largest).clamp(min=1e-300)[:, None, None]
    )
    ridge = torch.linalg.solve(a.mT @ a + eye, a.mT @ z.flatten(1).unsqueeze(2))
    exact = torch.linalg.pinv(a) @ z.flatten(1).unsqueeze(2)
    if any(_differ("", found, "", wanted.reshape(found.shape)) for wanted in (exact,)):
        yield from _differ("the damped inverse", found, "the ridge solution",
                           ridge.reshape(found.shape))  # fmt: skip


def remainder(p: Point) -> Findings:
    """Per operand i of a variadic rule: A_i^+ (z - c - sum of the others' A_j v_j)."""
    z, values = p.random(p.output, 6), p.randoms(7)
    for k, index in enumerate(p.active):
        found = p.call(p.rule.inverse, z, values, index)  # type: ignore[arg-type]
        others = [torch.zeros_like(v) if j == k else v for j, v in enumerate(values)]
        rest = z - p.shift() - p.linear(others)
        a = _columns(lambda v, k=k: p.linear(  # type: ignore[misc]
            [v if j == k else None for j in range(len(values))]), values[k])  # fmt: skip
        wanted = torch.linalg.pinv(a) @ rest.flatten(1).unsqueeze(2)
        yield from _shape(f"the remainder for operand {index}", found, values[k])
        yield from _differ(f"the remainder for operand {index}", found, "least squares",
                           wanted.reshape(found.shape))  # fmt: skip


def function_inverse(p: Point) -> Findings:
    """f(inverse(z)) is z, or z clipped to what the sample's output spans; finite for any z."""
    x = p.vectors[0]
    z = p.rule.forward(**_replaced(p, {p.first: x}, {p.first: 2 * p.random(x, 8)}))
    z = z.nan_to_num()  # where f is not defined
    dims = tuple(range(1, z.dim()))
    low, high = p.output.amin(dims, keepdim=True), p.output.amax(dims, keepdim=True)
    clipped = torch.minimum(torch.maximum(z, low), high)
    back = p.call(p.rule.inverse, z)  # type: ignore[arg-type]
    again = p.rule.forward(**_replaced(p, {p.first: x}, {p.first: back}))
    if any(_differ("", again, "", z)):
        yield from _differ("f(inverse(z))", again, "clip(z)", clipped)
    wild = p.call(p.rule.inverse, 100 * p.random(z, 9))  # type: ignore[arg-type]
    if not bool(wild.isfinite().all()):
        yield "the inverse of values that f never takes is not finite"


def diagonal(p: Point) -> Findings:
    """`diagonal` is A's diagonal, and A has nothing else; where f keeps the shape."""
    assert p.rule.diagonal is not None
    if p.output.shape != p.vectors[0].shape:
        return
    d = p.call(p.rule.diagonal) * torch.ones_like(p.output)
    yield from _differ("A", p.matrix(), "diag(d)", torch.diag_embed(d.flatten(1)))


def dense(p: Point) -> Findings:
    """`dense` is A, as a matrix over the channels, along dimension 1 or the last."""
    assert p.rule.dense is not None
    matrix = p.call(p.rule.dense)
    if matrix is None:
        return
    v = p.vectors[0]
    wanted, groups, inner = p.linear([v]), matrix.shape[0], matrix.shape[2]
    for axis in {1, v.dim() - 1}:
        if v.shape[axis] != groups * inner:
            continue
        parts = v.movedim(axis, -1).unflatten(-1, (groups, inner))
        found = torch.einsum("...gi,goi->...go", parts, matrix).flatten(-2).movedim(-1, axis)
        if found.shape == wanted.shape and not any(_differ("", found, "", wanted)):
            return
    yield f"dense {list(matrix.shape)} is not A along any dimension"


def batch(p: Point, case: Case) -> Findings:
    """Two samples at once give what each gives alone: forward, captures, A, A^T, inverse, vjp."""
    together = dict(_everything(p, p))
    for sample in range(len(p.output)):
        single = dict(_everything(Point(p.rule, case, sample=sample), p, sample))
        for name, found in together.items():
            for a, b in zip(tree_leaves(found), tree_leaves(single[name]), strict=True):
                part = a[sample : sample + 1] if a.shape != b.shape else a
                yield from _differ(f"{name} of sample {sample} in a batch", part, "alone", b)


def dtype(p: Point, case: Case) -> Findings:
    """float32 and bfloat16 run, give finite results, and stay what they are."""
    for kind in (torch.float32, torch.bfloat16):
        try:
            q = Point(p.rule, case, kind)
        except RuntimeError as error:
            if "not implemented for" in str(error):
                continue  # torch itself has no such operator here
            raise
        for name, found in _everything(q, q):
            if name == "captures":
                continue  # constants may be of double precision: results count
            for leaf in tree_leaves(found):
                if leaf.dtype != kind:
                    yield f"{name} is {leaf.dtype}, from {kind}"
                if not bool(leaf.isfinite().all()):
                    yield f"{name} is not finite in {kind}"


def labels(p: Point) -> Findings:
    """One dimension letter per dimension of the output."""
    before: Labels = max((("N", "C", "S", "S", "S")[: x.dim()] for x in p.vectors), key=len)
    if p.rule.variadic and p.rule.labels is None and len({x.dim() for x in p.vectors}) > 1:
        return
    after = before if p.rule.labels is None else p.call(p.rule.labels, before)
    if len(after) != p.output.dim():
        yield f"labels {after} for an output of {p.output.dim()} dimensions"


@dataclass(frozen=True)
class Law:
    """A law, and the rules that it is for, told from their fields."""

    check: Callable[..., Findings]
    applies: Callable[[Rule], bool] = lambda rule: True
    needs_case: bool = False


LAWS: dict[str, Law] = {
    "linear": Law(linear_is_linear),
    "adjoint": Law(adjoint),
    "affine": Law(affine),
    "jacobian": Law(jacobian, lambda rule: rule.vjp is None or bool(rule.control)),
    "vjp": Law(vjp),
    "Moore-Penrose": Law(
        moore_penrose,
        lambda r: r.inverse is not None and not r.variadic and not r.function_inverse,
    ),
    "damped": Law(damped, lambda r: r.inverse is not None and "damping" in parameters(r.inverse)),
    "remainder": Law(remainder, lambda r: r.inverse is not None and r.variadic),
    "function inverse": Law(function_inverse, lambda rule: rule.function_inverse),
    "diagonal": Law(diagonal, lambda rule: rule.diagonal is not None),
    "dense": Law(dense, lambda rule: rule.dense is not None),
    "batch": Law(batch, needs_case=True),
    "dtype": Law(dtype, needs_case=True),
    "labels": Law(labels),
}


def check_rule(rule: Rule, cases: Sequence[Case]) -> list[str]:
    """Tries every law that applies to `rule` on every case; returns what is broken, in words.

    An empty list: nothing found.  An exception inside the rule is a finding, too.
    """
    if not cases:
        return [f"{rule.name}: no cases"]
    return [
        finding
        for case in cases
        for name, law in LAWS.items()
        if law.applies(rule)
        for finding in check_law(rule, case, name)
    ]


def check_law(rule: Rule, case: Case, name: str) -> list[str]:
    """What one law finds at one case."""
    law, where = LAWS[name], f"{rule.name} ({case.id}): {name}"
    try:
        point = Point(rule, case)
        found = law.check(point, case) if law.needs_case else law.check(point)
        return [f"{where}: {finding}" for finding in found]
    except Exception as error:  # whatever a rule's function raises is the finding
        return [f"{where}: {type(error).__name__}: {error}"]


# Helpers.


def _forward(rule: Rule) -> Mapping[str, Any]:
    import inspect

    return inspect.signature(rule.forward).parameters


def _open(x: Tensor) -> tuple[int, ...]:
    """A shape with its batch dimension left open."""
    return (-1, *x.shape[1:])


def _batch(inputs: Arguments) -> tuple[int, int]:
    """The batch size, and the number of dimensions of what has it."""
    first = max((x for x in tree_leaves(inputs) if isinstance(x, Tensor)), key=lambda x: x.shape[0])
    return first.shape[0], 0


def _one(sample: int, batch: tuple[int, int]) -> Callable[[Any], Any]:
    """Cuts one sample out of what has a batch."""

    def cut(x: Any) -> Any:
        has = isinstance(x, Tensor) and x.dim() and x.shape[0] == batch[0]
        return x[sample : sample + 1] if has else x

    return cut
