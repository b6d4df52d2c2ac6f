"""Random CNN graphs compile, importance equals autograd, and no image changes another's result.

So do they inside wrappers, under hooks, pruned and parametrised, whatever their answer looks like;
what no map can follow is refused by name.

A network that fails becomes a hazard of its own, in `tests/hazards.py`.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from against_hooks import hooked
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_networks import (
    BATCH,
    HEADS,
    OPERATIONS,
    TREATMENTS,
    WRAPPERS,
    Instruction,
    network,
    treated,
)
from shelf import Reference, class_one, images, relative_error

import naflow_fx as nf
from naflow_fx.errors import NaflowError

PROGRAMS = st.lists(
    st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 5), st.integers(0, 5)),
    min_size=1,
    max_size=12,
)


def check(program: list[Instruction]) -> None:
    model, x = network(program), images((3, 8, 8), batch=3)
    explainer = nf.compile(
        model, x, target=class_one, keep=("importance",), inverse=nf.Inverse(steps=3)
    )
    flow = explainer(x)
    reference = Reference(model, x)
    gradients = reference.gradients(class_one)
    torch.testing.assert_close(flow.output, reference.output.detach(), rtol=1e-9, atol=1e-12)
    largest = max(float(g.abs().max()) for g in gradients.values())
    for site, found in flow.importance.items():
        wanted = gradients[site]
        assert found.shape == wanted.shape
        error = float((found - wanted).abs().max())
        assert error <= 1e-9 * float(wanted.abs().max()) + 1e-14 * largest, site
    for i in range(len(x)):
        single = explainer(x[i : i + 1])
        for site, found in single.maps.items():
            assert found.isfinite().all() and (found >= 0).all(), site
            if flow.maps[site][i].any():
                assert relative_error(flow.maps[site][i : i + 1], found) < 1e-6, site


@settings(
    max_examples=60, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
@given(PROGRAMS)
def test_random_networks(program: list[Instruction]) -> None:
    check(program)


def check_wrapped(program: list[Instruction], treatment: str, wrapper: str, head: str) -> None:
    """The importance at modules is the original's, by hooks; or the refusal names the cause."""
    inner, x, score = treated(program, treatment, head), images((3, 8, 8)), HEADS[head][1]
    model = WRAPPERS[wrapper](inner)
    options: Any = {"target": score, "method": "hirescam", "keep": "importance"}
    refused = {"hook that changes": "a hook changes what the model computes: .*stem",
               "autocast": "autocast is switched on inside the model's forward"}  # fmt: skip
    if treatment in refused:
        with pytest.raises(NaflowError, match=refused[treatment]):
            nf.compile(model, x, **options)
        return
    flow = nf.compile(model, x, **options)(x)
    wanted = hooked(inner, x, score)
    with torch.no_grad():
        torch.testing.assert_close(flow.score, score(inner(x)), rtol=1e-9, atol=1e-12)
    assert type(flow.output) is type(inner(x)) and "net.stem" in flow.importance
    largest = max(float(g.abs().max()) for _, g in wanted.values())
    for site in set(flow.importance) & set(wanted):
        error = float((flow.importance[site] - wanted[site][1]).abs().max())
        assert error <= 1e-9 * float(wanted[site][1].abs().max()) + 1e-14 * largest, site


@settings(
    max_examples=50, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
@given(
    PROGRAMS,
    st.sampled_from([*TREATMENTS, "autocast"]),
    st.sampled_from([*WRAPPERS]),
    st.sampled_from([*HEADS]),
)
def test_wrapped(program: list[Instruction], treatment: str, wrapper: str, head: str) -> None:
    check_wrapped(program, treatment, wrapper, head)


@pytest.mark.parametrize("operation", BATCH)
@settings(max_examples=2, deadline=None, derandomize=True, database=None)
@given(program=PROGRAMS, wrapper=st.sampled_from([*WRAPPERS]))
def test_batch_operations(program: list[Instruction], wrapper: str, operation: str) -> None:
    model = WRAPPERS[wrapper](treated([*program, (operation, 0, 0)], "none", "plain"))
    with pytest.raises(NaflowError, match=r"(?i)batch|cumsum|sort"):
        nf.compile(model, images((3, 8, 8)), target=class_one)
