"""A rule captured at an example call: what the laws are tried on.

An operator is small here: its captured matrix A is written out, per sample, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils._pytree import tree_leaves, tree_map

from naflow_fx.maps import use
from naflow_fx.rules.contract import Arguments, Function, Rule, asked, bind

DAMPING = 0.1
TOLERANCE = 1e-9  # relative to the largest number, or to 1

Findings = Iterator[str]


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
        active: variadic rules: which entries are activations; None: all tensors.  A constant
            entry has N in front only if it has one number per sample.
    """

    id: str
    inputs: Callable[[Generator], Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    active: tuple[int, ...] | None = None

    def draw(
        self, operand: str, dtype: torch.dtype = torch.float64, seed: int = 0
    ) -> tuple[Arguments, Arguments]:
        """The operands, which have a batch, and the other arguments; the same for the same seed."""
        generator = torch.Generator().manual_seed(seed)
        made = self.inputs(generator)
        inputs = made if isinstance(made, dict) else {operand: made}
        others = {k: v(generator) if callable(v) else v for k, v in self.arguments.items()}

        def cast(value: Any) -> Any:
            floating = isinstance(value, Tensor) and value.is_floating_point()
            return value.to(dtype) if floating else value

        return tree_map(cast, inputs), tree_map(cast, others)


class Point:
    """A rule captured at a case: its functions, all but the leading vector filled in.

    Attributes:
        state: what the rule's functions may ask for, as the compiler offers it (see `rule`).
        output: f(x).
        captures: what `capture` returned.
    """

    def __init__(
        self,
        rule: Rule,
        case: Case,
        dtype: torch.dtype = torch.float64,
        sample: int | None = None,
    ) -> None:
        self.rule, self.case, self.first = rule, case, rule.operands[0]
        self.inputs, others = case.draw(self.first, dtype)
        self.active = self._active()
        if sample is not None:
            size, one = len(self.vectors[0]), slice(sample, sample + 1)
            self.inputs = tree_map(lambda x: x[one] if _has(x, size) else x, self.inputs)
        self.arguments = bind(rule.forward, **self.inputs, **others)
        self.output: Tensor = rule.forward(**self.arguments)
        self.state: dict[str, Any] = self.arguments | self._shapes() | {
            "output": self.output, "active": self.active, "damping": 0.0,
        }  # fmt: skip
        self.captures = self._capture()

    def _active(self) -> tuple[int, ...]:
        if self.case.active is not None:
            return self.case.active
        values = map(self.inputs.get, self.rule.operands)
        if self.rule.variadic:
            values = self.inputs[self.first]
        return tuple(i for i, x in enumerate(values) if _floats(x))

    @property
    def vectors(self) -> list[Tensor]:
        """The activations that A acts on: one, or a variadic rule's active ones."""
        given = self.inputs[self.first]
        return [given[i] for i in self.active] if self.rule.variadic else [given]

    def _shapes(self) -> dict[str, Any]:
        given, found = self.inputs[self.first], {"output_shape": _open(self.output)}
        if not self.rule.variadic:
            return found | {"input_shape": _open(given)}
        shapes = [_open(x) if i in self.active else tuple(getattr(x, "shape", ()))
                  for i, x in enumerate(given)]  # fmt: skip
        return found | {"input_shapes": shapes}

    def _capture(self) -> tuple[Any, ...]:
        if self.rule.capture is None:
            return ()
        captured = self.call(self.rule.capture)
        values = (captured,) if len(self.rule.captures) == 1 else tuple(captured)
        self.state |= dict(zip(self.rule.captures, values, strict=True))
        return values

    def call(self, function: Function | None, *leading: Any, **changed: Any) -> Any:
        """`function` of the leading arguments and what it asks for by name."""
        assert function is not None
        return function(*leading, **asked(function, self.state | changed, len(leading)))

    def linear(self, v: Sequence[Tensor | None]) -> Tensor:
        """A v."""
        result: Tensor = self.call(self.rule.linear, list(v) if self.rule.variadic else v[0])
        return result

    def transpose(self, w: Tensor) -> list[Tensor]:
        """A^T w."""
        found = self.call(self.rule.transpose, w)
        return list(found) if self.rule.variadic else [found]

    def support(self, w: Tensor) -> list[Tensor]:
        """P^T w without signs, as `count_use` writes it."""
        function, operands = self.rule.support or self.rule.transpose, self.rule.operands
        numbers = {k: float(v != 0) for k, v in self.state.items()
                   if k in operands and isinstance(v, (int, float))}  # fmt: skip
        patterns = tree_map(lambda x: use.pattern(x) if isinstance(x, Tensor) else x, self.state)
        kernel = patterns.get(self.rule.kernel)
        patterns["full"] = kernel is not None and bool(kernel.all())
        found = self.call(function, w.to(torch.float32), **patterns | numbers)
        return [part.abs() for part in (found if self.rule.variadic else [found])]

    def shift(self) -> Any:
        """c; None if there is none."""
        return None if self.rule.shift is None else self.call(self.rule.shift)

    def inverse(self, z: Tensor, damping: float = 0.0) -> Tensor:
        """The inverse of z + c, of a rule with one operand."""
        c = self.shift()
        result: Tensor = self.call(self.rule.inverse, z if c is None else z + c, damping=damping)
        return result

    def inverse_matrix(self) -> Tensor:
        """P, [N, p, q], of `inverse`."""
        return columns(self.inverse, self.output)

    def remainder(self, z: Tensor, values: Sequence[Tensor], k: int) -> Tensor:
        """What remains of z for the k-th active operand of a variadic rule."""
        others = [None if j == k else v for j, v in enumerate(values)]
        result: Tensor = self.call(self.rule.inverse, z, self.active[k], values=others)
        return result

    def vjp(self, w: Tensor) -> dict[str, Tensor | None]:
        """The derivative by operand: "input", "gate", or "0", "1", ... of a variadic rule."""
        found = self.call(self.rule.vjp or self.rule.transpose, w)
        names = tuple(map(str, self.active)) if self.rule.variadic else self.rule.operands
        parts = found if isinstance(found, (tuple, list)) else (found,)
        return dict(zip(names, parts, strict=False))

    def differentiable(self) -> dict[str, Tensor]:
        """The operands that have a derivative, by the names of `vjp`."""
        if self.rule.variadic:
            return {str(i): x for i, x in zip(self.active, self.vectors, strict=True)}
        return {name: x for name, x in self.inputs.items() if _floats(x)}

    def forward(self, changed: Mapping[str, Tensor]) -> Tensor:
        """f with operands replaced, by the names of `vjp`."""
        given: Arguments = dict(changed)
        if self.rule.variadic:
            entries = enumerate(self.arguments[self.first])
            given = {self.first: [changed.get(str(i), x) for i, x in entries]}
        result: Tensor = self.rule.forward(**self.arguments | given)
        return result

    def random(self, like: Tensor, seed: int) -> Tensor:
        """Normal random numbers of that shape and dtype."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like.dtype)

    def randoms(self, seed: int) -> list[Tensor]:
        """A random vector for A."""
        return [self.random(x, seed + i) for i, x in enumerate(self.vectors)]

    def matrix(self) -> Tensor:
        """A, [N, q, p]; p runs over all operands."""
        return torch.cat([self.block(i) for i in range(len(self.vectors))], 2)

    def block(self, index: int) -> Tensor:
        """The columns of A that belong to one operand, [N, q, p]."""

        def apply(v: Tensor) -> Tensor:
            return self.linear([v if i == index else None for i in range(len(self.vectors))])

        return columns(apply, self.vectors[index])

    def jacobian(self, name: str) -> Tensor:
        """Autograd's Jacobian of f by one operand, [N, q, p]."""
        leaf = self.differentiable()[name].detach().requires_grad_()
        y = rows(self.forward({name: leaf}))
        found = [torch.autograd.grad(row.sum(), leaf, retain_graph=True)[0] for row in y.unbind(1)]
        return torch.stack([rows(row) for row in found], 1)


def columns(function: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """The matrix [N, q, p] of a linear function of something shaped as `like`, [N, ...]."""
    units = torch.eye(like[0].numel(), dtype=like.dtype).reshape(-1, 1, *like.shape[1:])
    return torch.stack([rows(function(unit.expand(like.shape).clone())) for unit in units], 2)


def results(p: Point, v: list[Tensor], w: Tensor) -> dict[str, Any]:
    """What all functions make of an input-shaped v and an output-shaped w."""
    found = {"f": p.output, "captures": p.captures, "A v": p.linear(v), "c": p.shift(),
             "A^T w": p.transpose(w), "the derivative": p.vjp(w)}  # fmt: skip
    if p.rule.inverse is not None:
        found["the inverse"] = (
            [p.remainder(w, v, k) for k in range(len(p.active))]
            if p.rule.variadic
            else p.call(p.rule.inverse, w, damping=DAMPING)
        )
    return found


def tensors(value: Any) -> list[Tensor]:
    """The tensors of a nested result; numbers and None are left out."""
    return [x for x in tree_leaves(value) if isinstance(x, Tensor)]


def rows(x: Tensor) -> Tensor:
    """[N, ...] -> [N, numbers of one sample]."""
    return x.reshape(len(x), -1)


def applied(matrix: Tensor, vector: Tensor, like: Tensor) -> Tensor:
    """A matrix [N, a, b] times a vector of b numbers per sample, in the shape of `like`."""
    return (matrix @ rows(vector).unsqueeze(2)).reshape(like.shape)


def inner(a: Tensor, b: Tensor) -> Tensor:
    """<a, b> per sample."""
    return rows(a * b).sum(1)


def shaped(name: str, found: Tensor, like: Tensor) -> Findings:
    """Finds a shape that is not that of `like`."""
    if found.shape != like.shape:
        yield f"{name} has shape {list(found.shape)}; wanted {list(like.shape)}"


def gap(a: Tensor, b: Tensor) -> float:
    """By how much two tensors differ; 0: by rounding, infinite: in shape."""
    if a.shape != b.shape:
        return math.inf
    a, b = a.detach().double(), b.detach().double()
    error, scale = (a - b).abs().amax(), torch.maximum(a.abs().amax(), b.abs().amax())
    return 0.0 if bool(error <= TOLERANCE * scale.clamp(min=1.0)) else float(error)


def differ(name: str, a: Tensor, other: str, b: Tensor) -> Findings:
    """Finds two tensors that are not the same."""
    far = gap(a, b)
    if a.shape != b.shape:
        yield f"{name} has shape {list(a.shape)}, {other} {list(b.shape)}"
    elif far:
        yield f"{name} is not {other}: they differ by up to {far:.2g}"


def _has(x: Any, size: int) -> bool:
    """Whether x has a batch of that size."""
    return isinstance(x, Tensor) and x.dim() > 0 and len(x) == size


def _floats(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point()


def _open(x: Tensor) -> tuple[int, ...]:
    """A shape with its batch dimension left open."""
    return (-1, *x.shape[1:])
