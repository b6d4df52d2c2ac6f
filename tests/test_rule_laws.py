"""Every rule of the table keeps every law at every case; a rule broken on purpose does not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rule_cases import CASES, OF_PAIRS, normal
from torch import Tensor
from torch.utils._pytree import tree_map

import naflow_fx as nf
from naflow_fx.rules import TABLE, _separable, pools, relu
from naflow_fx.rules._shapes import sum_to
from naflow_fx.rules.contract import Function, Rule, parameters
from naflow_fx.rules.laws import LAWS, Case, check_law

ALL = [
    pytest.param(rule, case, law, id=f"{rule.name}-{case.id}-{law}")
    for rule in TABLE
    for case in CASES.get(rule.name, ())
    for law in LAWS
    if LAWS[law].applies(rule)
]


LAWFUL = [rule for rule in TABLE if rule.name not in OF_PAIRS]


def test_every_rule_has_cases() -> None:
    assert set(CASES) | OF_PAIRS == set(TABLE.rules)
    for name, cases in CASES.items():
        assert cases, name
        assert len({case.id for case in cases}) == len(cases), name


@pytest.mark.parametrize(("rule", "case", "law"), ALL)
def test_rule_keeps_law(rule: Rule, case: Case, law: str) -> None:
    assert check_law(rule, case, law) == []


# Broken on purpose: every rule of the table in the same ways, then single ones in their own.


def after(function: Function, change: Callable[[Any], Any]) -> Function:
    """The same function with its result changed; it asks for the same names."""

    @functools.wraps(function)
    def changed(*args: Any, **kwargs: Any) -> Any:
        return change(function(*args, **kwargs))

    return changed


def each(change: Callable[[Tensor], Tensor]) -> Callable[[Any], Any]:
    """A change of every floating point tensor in a result."""

    def one(x: Any) -> Any:
        return change(x) if isinstance(x, Tensor) and x.is_floating_point() else x

    return lambda result: tree_map(one, result)


larger = each(lambda x: x * 1.01 + 0.01)
CHANGES: dict[str, Callable[[Any], Any]] = {
    "labels": lambda letters: (*letters, "S"),
    "groups": lambda count: 2 * count,
    "off": torch.logical_not,
    "mixes": lambda words: "images are mixed",
}
ROLES = {
    "linear": {"linear", "adjoint", "affine"},
    "transpose": {"adjoint"},
    "inverse": {"Moore-Penrose", "remainder", "function inverse"},
    "vjp": {"vjp"},
    "shift": {"affine"},
    "support": {"support"},
    "off": {"off"},
    "diagonal": {"diagonal"},
    "scaled": {"scaled"},
    "groups": {"groups"},
    "labels": {"labels"},
    "mixes": {"mixes"},
    "swap": {"swap"},
}
BROKEN = [
    pytest.param(rule, role, id=f"{rule.name}-{role}")
    for rule in LAWFUL
    for role in ROLES
    if getattr(rule, role) is not None
]


def reported(rule: Rule, laws: set[str]) -> set[str]:
    """Which of these laws find something; a case is enough."""
    cases = CASES[rule.name]
    applied = [law for law in laws if LAWS[law].applies(rule)]
    return {law for law in applied if any(check_law(rule, case, law) for case in cases)}


@pytest.mark.parametrize(("rule", "role"), BROKEN)
def test_a_wrong_result_is_found(rule: Rule, role: str) -> None:
    change = CHANGES.get(role, larger)
    broken = replace(rule, **{role: after(getattr(rule, role), change)})  # type: ignore[arg-type]
    wanted = {law for law in ROLES[role] if LAWS[law].applies(rule)}
    assert reported(broken, wanted) == wanted


@pytest.mark.parametrize("role", ["linear", "transpose", "inverse"])
@pytest.mark.parametrize("rule", LAWFUL, ids=lambda rule: rule.name)
def test_double_precision_is_found(rule: Rule, role: str) -> None:
    if getattr(rule, role) is not None:
        double = after(getattr(rule, role), each(Tensor.double))
        assert reported(replace(rule, **{role: double}), {"dtype"})  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", [r for r in TABLE if r.shift is not None], ids=lambda r: r.name)
def test_a_missing_shift_is_found(rule: Rule) -> None:
    assert reported(replace(rule, shift=None, has_shift=None), {"affine"})


@pytest.mark.parametrize("rule", [r for r in TABLE if r.has_shift], ids=lambda r: r.name)
def test_a_wrong_has_shift_is_found(rule: Rule) -> None:
    assert rule.has_shift is not None
    assert reported(replace(rule, has_shift=after(rule.has_shift, lambda x: not x)), {"affine"})


def looks_at_the_sample(rule: Rule) -> bool:
    """Whether what a rule captures depends on the sample."""
    return rule.capture is not None and bool(
        {*rule.operands, "output"} & set(parameters(rule.capture))
    )


@pytest.mark.parametrize("rule", [r for r in TABLE if looks_at_the_sample(r)], ids=lambda r: r.name)
def test_captures_of_another_sample_are_found(rule: Rule) -> None:
    assert rule.capture is not None
    rolled = after(rule.capture, lambda found: tree_map(lambda x: x.roll(1, 0), found))
    assert reported(replace(rule, capture=rolled), {"batch"})


def law_names(rule: Rule) -> set[str]:
    """The laws that `check_rule` reports."""
    findings = nf.check_rule(rule, CASES[rule.name])
    assert all(finding.startswith(f"{rule.name} (") for finding in findings)
    return {finding.split("): ")[1].split(": ")[0] for finding in findings}


def unflipped(w: Tensor, weight: Tensor) -> Tensor:
    """The transpose of a stride 1 convolution as one that forgot to flip the kernel."""
    rank = weight.dim() - 2
    flipped = weight.flip(tuple(range(2, weight.dim())))
    convolve: Any = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
    found: Tensor = convolve(w, flipped)
    return found


def largest_of_batch(z: Tensor, gate: Any, damping: float, input_shape: Any) -> Tensor:
    """A damped gate that looks at other samples."""
    square = torch.as_tensor(gate, dtype=z.dtype) ** 2
    return sum_to(z * gate / (square + damping * square.amax() + 1e-30), input_shape)


def unscaled(z: Tensor, index: int, values: Any, input_shapes: Any) -> Tensor:
    """What a sum leaves, if every scale were 1 and there were no constants."""
    others = [value for value in values if value is not None]
    return sum_to(z - sum(others), input_shapes[index])


PLANTED: list[tuple[str, str, dict[str, Any], set[str]]] = [
    ("kernel not flipped", "conv", {"transpose": unflipped}, {"adjoint", "vjp"}),
    ("no inverse", "relu", {"inverse": lambda z: z}, {"Moore-Penrose"}),
    ("no inverse of a sigmoid", "sigmoid", {"inverse": lambda z: z}, {"function inverse"}),
    ("unclipped", "sigmoid", {"inverse": lambda z: torch.logit(z)}, {"function inverse"}),
    ("shared winners added", "max_pool", {"inverse": pools.add_up}, {"Moore-Penrose"}),
    ("adjoint for inverse", "avg_pool", {"inverse": _separable.transpose}, {"Moore-Penrose"}),
    ("secant for derivative", "hardtanh", {"vjp": None}, {"jacobian", "vjp"}),
    ("gate held constant", "silu", {"vjp": None}, {"jacobian", "vjp"}),
    ("gate without derivative", "mul", {"vjp": None}, {"vjp"}),
    ("damped by the batch", "mul", {"inverse": largest_of_batch}, {"batch", "damped"}),
    ("damping of no scale", "silu",
     {"inverse": lambda z, gate, damping: z * gate / (gate * gate + damping)}, {"damped"}),
    ("zero counts as on", "relu", {"capture": lambda input: input >= 0}, {"vjp"}),
    ("in place", "relu", {"linear": lambda v, mask: v.mul_(mask)}, {"pure"}),
    ("an unbounded gate", "relu", {"gating": "squashes"}, {"gating"}),
    ("a curve that carries", "silu", {"gating": "carries"}, {"gating"}),
    ("a mean as a view", "mean", {"view": True}, {"view"}),
    ("an order that changes", "flip", {"regroups": True}, {"view"}),
    ("a mean that keeps all apart", "mean", {"mixes": lambda: ""}, {"mixes"}),
    ("scales forgotten", "add", {"inverse": unscaled}, {"remainder"}),
    ("raises", "relu", {"linear": lambda v, mask: v[5]}, {"linear", "affine", "jacobian"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "changes", "laws"), [p[1:] for p in PLANTED], ids=[p[0] for p in PLANTED]
)
def test_a_wrong_rule_is_found(name: str, changes: dict[str, Any], laws: set[str]) -> None:
    assert laws <= law_names(replace(TABLE.rules[name], **changes))


def test_findings_say_what_and_where() -> None:
    (finding,) = nf.check_rule(
        replace(relu.RULE, labels=lambda labels: labels[:2]), [Case("small", normal(2, 3, 4))]
    )
    assert finding == "relu (small): labels: ('N', 'C') for an output of 3 dimensions"
    assert nf.check_rule(relu.RULE, []) == ["relu: no cases"]
    assert nf.check_rule(relu.RULE, [Case("small", normal(2, 3, 4))]) == []
