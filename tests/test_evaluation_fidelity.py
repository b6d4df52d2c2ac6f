"""Fidelity of Z: the cosine with the activation, over the neurons that take part."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from shelf import HAZARDS, Reference, hazard, hazard_images, score_of
from torch import nn

import naflow_fx as nf
from naflow_fx.errors import EvaluationError
from naflow_fx.evaluation.fidelity import KEEP, activations, fidelity
from naflow_fx.evaluation.methods import make
from naflow_fx.evaluation.synthetic import SmallCNN, synthetic


@pytest.mark.parametrize("name", HAZARDS)
def test_activations_are_the_networks_own(name: str) -> None:
    model, x = hazard(name), hazard_images(name)
    explainer = nf.compile(model, x, target=score_of(name), method="hirescam")
    found, wanted = activations(explainer, x), Reference(model, x).values
    assert list(found) == explainer.layers
    for site, value in found.items():
        torch.testing.assert_close(value, wanted[site].detach())


def test_it_is_the_cosine_over_the_neurons_that_take_part() -> None:
    network, data = SmallCNN(4).eval(), synthetic(3)
    explainer = nf.compile(network, data.images[:1], keep=KEEP)
    flow, x = explainer(data.images, data.target), activations(explainer, data.images)
    found = fidelity(flow, x)
    assert list(found) == explainer.layers
    for site, values in found.items():
        for i, value in enumerate(values):
            used = flow.used[site][i]
            z, a = (v[i][used].double().numpy() for v in (flow.bpfm[site], x[site]))
            assert float(value) == pytest.approx(
                float(z @ a) / (np.linalg.norm(z) * np.linalg.norm(a)), abs=1e-5
            )
    assert found["3.relu_1"].tolist() == pytest.approx([1.0] * 3)  # where Z starts
    spoilt = {s: torch.where(flow.used[s], 3 * a, torch.inf) for s, a in x.items()}
    for site, values in fidelity(flow, spoilt).items():  # neither scale nor abandoned neurons count
        torch.testing.assert_close(values, found[site])


def test_it_is_1_where_the_inverse_is_exact_and_0_where_nothing_is_used() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.LeakyReLU(0.5), nn.Conv2d(8, 12, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 6),
    ).double()  # fmt: skip
    x, target = synthetic(2).images.double(), torch.tensor([0, 1])
    explainer = nf.compile(network, x, keep=KEEP, inverse=nf.Inverse(damping=0, steps=40))
    flow, activation = explainer(x, target), activations(explainer, x)
    assert all(v.min() > 1 - 1e-9 for v in fidelity(flow, activation).values())
    dead = replace(flow, used={k: torch.zeros_like(v) for k, v in flow.used.items()})
    assert all((v == 0).all() for v in fidelity(dead, activation).values())


def test_a_flow_that_has_not_kept_z_is_told() -> None:
    network, data = SmallCNN(4).eval(), synthetic(2)
    explainer = nf.compile(network, data.images[:1], keep="bpfm")
    with pytest.raises(EvaluationError, match=r"keep=\('bpfm', 'used'\)"):
        fidelity(explainer(data.images), activations(explainer, data.images))


def test_evaluate_measures_it_where_z_is_kept() -> None:
    network, data = SmallCNN(4).eval(), synthetic(3)
    made = {name: make(name, network, data.images[:1], ["1.add", "3.relu_1"], ["fidelity"])
            for name in ("naflow", "naflow-all", "layercam")}  # fmt: skip
    found = nf.evaluate(made, data, ["energy", "fidelity"])
    assert "fidelity" not in found.scores["layercam"]
    explainer = nf.compile(network, data.images[:1], keep=KEEP)
    wanted = fidelity(explainer(data.images, data.target), activations(explainer, data.images))
    for name in ("naflow", "naflow-all"):
        scores = found.scores[name]["fidelity"]
        assert scores.layers == ("1.add", "3.relu_1") and scores.values.shape == (2, 3)
    np.testing.assert_allclose(
        found.scores["naflow"]["fidelity"].values[0], wanted["1.add"], rtol=1e-4
    )
