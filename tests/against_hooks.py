"""A model's own gradients, by hooks on the model itself: what no trace has touched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from shelf import relative_error
from torch import Tensor, nn

import naflow_fx as nf

Score = Callable[[Any], Tensor]


def hooked(model: nn.Module, x: Tensor, score: Score) -> dict[str, tuple[Tensor, Tensor]]:
    """Output and d score / d output of every module that is called once, and of the input.

    Without those that hand on their input itself, such as dropout: its readers are theirs, too.
    """
    found: dict[str, list[Tensor]] = {}

    def note(name: str, inputs: Any, output: Any) -> None:
        if not any(output is x for x in inputs):
            found.setdefault(name, []).append(output)

    handles = [
        m.register_forward_hook(lambda m, i, o, name=name: note(name, i, o))
        for name, m in model.named_modules()
        if name
    ]
    inputs = x.clone().requires_grad_()
    with torch.enable_grad():
        total = score(model(inputs.clone())).sum()
    for handle in handles:
        handle.remove()
    once = {k: v[0] for k, v in found.items() if len(v) == 1 and isinstance(v[0], Tensor)}
    tracked = {k: v for k, v in once.items() if v.requires_grad} | {"": inputs}
    grads = torch.autograd.grad(total, list(tracked.values()), allow_unused=True)
    return {
        k: (v.detach(), torch.zeros_like(v) if g is None else g)
        for (k, v), g in zip(tracked.items(), grads, strict=True)
    }


def largest_error(model: nn.Module, x: Tensor, score: Score) -> tuple[float, list[str]]:
    """The importance's worst error at modules and at the input, and the sites compared."""
    wanted = hooked(model.eval(), x, score)
    flow = nf.compile(model, x, target=score, method="hirescam", keep="importance")(x)
    names = {next(iter(flow.importance)): ""} | {k: k for k in flow.importance if k in wanted}
    errors = [relative_error(flow.importance[k], wanted[v][1]) for k, v in names.items()
              if wanted[v][1].any()]  # fmt: skip
    dead = [flow.importance[k] for k, v in names.items() if not wanted[v][1].any()]
    assert not any(x.any() for x in dead)
    return max(errors), list(names)
