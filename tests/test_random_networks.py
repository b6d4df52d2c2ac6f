"""Random CNN graphs compile, importance equals autograd, and no image changes another's result.

A network that fails becomes a hazard of its own, in `naflow_fx/models/hazards.py`.
"""

from __future__ import annotations

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_networks import OPERATIONS, Instruction, network
from shelf import Reference, class_one, images, relative_error

import naflow_fx as nf

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
