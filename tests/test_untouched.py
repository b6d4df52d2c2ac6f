"""What compiling and explaining leave alone: the model, its modes, the state of torch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from flows import STEPS, assert_near, assert_same_bytes
from shelf import (
    class_one,
    hazard,
    hazard_images,
    images,
)
from torch import nn

import naflow_fx as nf
from naflow_fx.errors import InputError


def everything(model: nn.Module) -> dict[str, Any]:
    """All that a user could see of a model."""
    state = model.state_dict(keep_vars=True)
    return {
        "mode": {name: m.training for name, m in model.named_modules()},
        "identity": {name: (id(t), t._version, t.requires_grad) for name, t in state.items()},
        "bytes": {name: t.detach().numpy().tobytes() for name, t in state.items()},
        "grad": {
            n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()
        },
        "hooks": {
            name: [list(getattr(m, kind)) for kind in vars(m) if kind.endswith("_hooks")]
            for name, m in model.named_modules()
        },
        "attributes": {name: sorted(vars(m)) for name, m in model.named_modules()},
        "in place": {n: getattr(m, "inplace", None) for n, m in model.named_modules()},
    }


def assert_unchanged(before: dict[str, Any], model: nn.Module) -> None:
    after = everything(model)
    grads, now = before.pop("grad"), after.pop("grad")
    assert before == after
    for name, grad in grads.items():
        assert (grad is None) == (now[name] is None)
        assert grad is None or torch.equal(grad, now[name])


@pytest.mark.parametrize("name", ["in_place", "dropout", "functional", "pre_activation"])
def test_the_model_is_never_changed(name: str) -> None:
    model, x = hazard(name).train(), hazard_images(name)
    for child in list(model.children())[:1]:
        child.eval()  # a mixed mode, as in fine-tuning
    first = next(model.parameters())
    first.requires_grad_(False)
    for parameter in list(model.parameters())[1:]:
        parameter.grad = torch.ones_like(parameter)
    seen: list[Any] = []
    model.register_forward_hook(lambda *_: seen.append(1))
    before, image = everything(model), x.clone()
    explainer = nf.compile(model, x, inverse=STEPS)
    flow = explainer(x)
    explainer(x, class_one)
    assert_unchanged(before, model)
    assert torch.equal(x, image) and x.grad is None
    assert not flow.score.requires_grad
    assert all(not value.requires_grad for value in flow.maps.values())


def test_moving_the_explainer_leaves_the_model() -> None:
    model, x = hazard("in_place", torch.float32), hazard_images("in_place", dtype=torch.float32)
    before = everything(model)
    explainer = nf.compile(model, x, inverse=STEPS)
    flow = explainer(x)
    assert explainer.to(torch.float64) is explainer
    double = explainer(x.double())
    assert {m.dtype for m in double.maps.values()} == {torch.float64}
    assert double.output.dtype == torch.float64
    assert_near(double, flow, 1e-4)
    with pytest.raises(InputError, match=r"got torch.float32; this explainer computes in torch.fl"):
        explainer(x)
    assert_near(explainer(x.double(), class_one), nf.compile(model, x, inverse=STEPS)(x, 1), 1e-4)
    assert_unchanged(before, model)
    shared = {b.data_ptr() for b in explainer.buffers()}
    assert not shared & {p.data_ptr() for p in model.parameters()}


def test_a_frozen_model() -> None:
    model, x = hazard("in_place"), hazard_images("in_place")
    wanted = nf.compile(model, x, inverse=STEPS)(x)
    frozen = copy.deepcopy(model).requires_grad_(False)
    assert_same_bytes(nf.compile(frozen, x, inverse=STEPS)(x), wanted)


@pytest.mark.parametrize("name", ["dropout", "in_place", "scaled_chain"])
def test_a_model_in_train_mode_is_explained_as_in_eval(name: str) -> None:
    model, x = hazard(name).train(), hazard_images(name)
    found = nf.compile(model, x, inverse=STEPS)(x)
    wanted = nf.compile(hazard(name).eval(), x, inverse=STEPS)(x)
    assert_same_bytes(found, wanted)
    torch.testing.assert_close(found.output, hazard(name).eval()(x).detach())


MODES: dict[str, Callable[[], Any]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "enable_grad": torch.enable_grad,
}


@pytest.mark.parametrize("mode", MODES)
def test_grad_modes(mode: str) -> None:
    model, x = hazard("gate"), hazard_images("gate")
    outside = nf.compile(model, x, inverse=STEPS)
    wanted = outside(x)
    with MODES[mode]():
        inside = nf.compile(model, x.clone(), inverse=STEPS)
        assert_same_bytes(inside(x.clone()), wanted)
        assert_same_bytes(outside(x.clone()), wanted)
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        outside(x, class_one)
        assert before == (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
    assert_same_bytes(inside(x), wanted)
    assert_same_bytes(outside(x.clone().requires_grad_()), wanted)


def test_a_model_made_in_inference_mode() -> None:
    with torch.inference_mode():
        model, x = hazard("gate"), hazard_images("gate")
        found = nf.compile(model, x, inverse=STEPS)
        flow = found(x)
    wanted = nf.compile(hazard("gate"), hazard_images("gate"), inverse=STEPS)(hazard_images("gate"))
    assert_same_bytes(flow, wanted)
    assert_same_bytes(found(hazard_images("gate")), wanted)


def test_global_state_is_untouched() -> None:
    torch.manual_seed(5)
    model, x = hazard("inception"), hazard_images("inception")
    before = torch.get_rng_state()
    explainer = nf.compile(model, x, inverse=STEPS)
    explainer(x)
    explainer(x, class_one)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_default_dtype() == torch.float32 and torch.is_grad_enabled()
    torch.set_default_dtype(torch.float64)
    try:
        with_default = nf.compile(hazard("gate", torch.float32), images((3, 12, 12)).float())
        flow = with_default(images((3, 12, 12)).float())
    finally:
        torch.set_default_dtype(torch.float32)
    assert {m.dtype for m in flow.maps.values()} == {torch.float32}
