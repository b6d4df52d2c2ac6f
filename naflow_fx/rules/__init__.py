"""The rule table: every operator that the compiler knows, one line each.

An operator that is not here is an error that names it, never a silent gradient.  Adding one:
a file beside this one, a line here, an entry in the test cases (docs/operators.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from naflow_fx.errors import RuleError
from naflow_fx.rules import (
    abs,
    add,
    amax,
    avg_pool,
    batch_norm,
    cast,
    cat,
    channel_shuffle,
    clamp,
    class_score,
    compare,
    conv,
    conv_transpose,
    div,
    einsum,
    elu,
    exp,
    expand,
    flat_cat,
    gelu,
    getitem,
    grid_sample,
    group_norm,
    hardsigmoid,
    hardswish,
    hardtanh,
    hold,
    identity,
    interpolate,
    layer_norm,
    leaky_relu,
    linear,
    local_response_norm,
    log,
    logsumexp,
    matmul,
    max_pool,
    max_unpool,
    maximum,
    mean,
    mish,
    mul,
    norm,
    normalize,
    pad,
    pair_side,
    permute,
    pixel_shuffle,
    pow,
    relu,
    repeat,
    reshape,
    roll,
    sigmoid,
    silu,
    softmax,
    softplus,
    split,
    stack,
    tanh,
    unfold,
    var,
    where,
)
from naflow_fx.rules.contract import Function, Rule


class RuleTable:
    """Rules by name, by what they replace in a traced graph, and by their canonical form."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules: dict[str, Rule] = {}
        self.targets: dict[Any, tuple[Rule, Function]] = {}
        self.modules: dict[type, tuple[Rule, Function]] = {}
        self.forwards: dict[Function, Rule] = {}
        for rule in rules:
            self.add(rule)

    def __iter__(self) -> Iterator[Rule]:
        return iter(self.rules.values())

    def add(self, rule: Rule) -> None:
        """Adds a rule.

        Raises:
            RuleError: its name, or an operator that it claims, is taken.
        """
        taken = [str(t) for t in rule.targets if t in self.targets]
        taken += [t.__name__ for t in rule.modules if t in self.modules]
        if rule.name in self.rules or taken:
            raise RuleError(f"rule {rule.name!r}: already in the table: {taken or rule.name}")
        self.rules[rule.name] = rule
        self.forwards[rule.forward] = rule
        self.targets |= {target: (rule, adapter) for target, adapter in rule.targets.items()}
        self.modules |= {kind: (rule, adapter) for kind, adapter in rule.modules.items()}

    def of_module(self, module: nn.Module) -> tuple[Rule, Function] | None:
        """The rule of a module, and the adapter to its arguments; None: its forward has none."""
        kind = kind_of(module)
        base: Any = next((k for k in kind.__mro__ if k in self.modules), None)
        return self.modules[base] if base and kind.forward is base.forward else None


def kind_of(module: nn.Module) -> type[nn.Module]:
    """The class that wrote a module's forward: torch's parametrised classes stand before it."""
    return type(module).__mro__[1] if is_parametrized(module) else type(module)


TABLE = RuleTable(
    [
        abs.RULE,
        add.RULE,
        amax.RULE,
        avg_pool.RULE,
        batch_norm.RULE,
        cast.RULE,
        cat.RULE,
        channel_shuffle.RULE,
        clamp.RULE,
        class_score.RULE,
        compare.RULE,
        conv.RULE,
        conv_transpose.RULE,
        div.RULE,
        einsum.RULE,
        elu.RULE,
        exp.RULE,
        expand.RULE,
        flat_cat.RULE,
        gelu.RULE,
        getitem.RULE,
        grid_sample.RULE,
        group_norm.RULE,
        hardsigmoid.RULE,
        hardswish.RULE,
        hardtanh.RULE,
        hold.RULE,
        identity.RULE,
        interpolate.RULE,
        layer_norm.RULE,
        leaky_relu.RULE,
        linear.RULE,
        local_response_norm.RULE,
        log.RULE,
        logsumexp.RULE,
        matmul.RULE,
        max_pool.RULE,
        max_unpool.RULE,
        maximum.RULE,
        mean.RULE,
        mish.RULE,
        mul.RULE,
        norm.RULE,
        normalize.RULE,
        pad.RULE,
        pair_side.RULE,
        permute.RULE,
        permute.MOVE,
        pixel_shuffle.RULE,
        pixel_shuffle.UNSHUFFLE,
        pow.RULE,
        relu.RULE,
        repeat.RULE,
        reshape.RULE,
        roll.RULE,
        roll.FLIP,
        sigmoid.RULE,
        silu.RULE,
        softmax.RULE,
        softmax.LOG,
        softplus.RULE,
        split.RULE,
        stack.RULE,
        tanh.RULE,
        unfold.RULE,
        var.RULE,
        where.RULE,
    ]
)


def register(rule: Rule) -> Rule:
    """Adds a user's rule to the table, for models compiled from now on.

    Raises:
        RuleError: its name, or an operator that it claims, has a rule.
    """
    TABLE.add(rule)
    return rule
