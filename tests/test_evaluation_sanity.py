from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import naflow_fx as nf
from naflow_fx.errors import EvaluationError
from naflow_fx.evaluation.data import Explain
from naflow_fx.evaluation.sanity import Make, by_class, cascading, compared, randomised, spearman
from naflow_fx.evaluation.synthetic import SmallCNN, synthetic, train, trained

LAYERS = ["0.2", "1.relu_1", "2.relu_1"]


def maker(method: str) -> Make:
    example = synthetic(1).images

    def make(model: nn.Module) -> Explain:
        return nf.compile(model, example, layers=LAYERS, method=method, reduction="channelwise")

    return make


def test_spearman_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    generator = torch.Generator().manual_seed(0)
    a = (torch.rand(4, 5, 6, generator=generator) * 6).round()  # with ties
    b = torch.rand(4, 5, 6, generator=generator)
    ours = spearman(a, b)
    for i in range(4):
        theirs = stats.spearmanr(a[i].flatten(), b[i].flatten()).statistic
        assert float(ours[i]) == pytest.approx(float(theirs), abs=1e-12)
    assert spearman(torch.zeros(1, 3, 3), b[:1, :3, :3]).item() == 0
    assert spearman(b, b).tolist() == pytest.approx([1.0] * 4)


def test_weights_are_randomised_from_the_output_down() -> None:
    network = SmallCNN(width=4).eval()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    half = randomised(network, 0.2).state_dict()
    changed = {k for k in before if not torch.equal(before[k], half[k])}
    assert {k for k in changed if k.endswith("weight")} == {"4.2.weight", "3.down.weight"}
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    everything = randomised(network, 1.0).state_dict()
    for key in ("0.0.weight", "4.2.weight"):
        assert torch.equal(
            everything[key].flatten().sort().values, before[key].flatten().sort().values
        )
        assert not torch.equal(everything[key], before[key])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["naflow", "layercam"])
def test_random_weights_destroy_the_maps(method: str) -> None:
    network, data = trained(), synthetic(12)
    found = cascading(maker(method), network, data, (0.5, 1.0))
    before, _, after = found.energies()
    share = float(data.share.mean())
    assert before.mean > 2.5 * share
    assert after.mean < 1.5 * share
    assert found.similarities()[-1].mean < 0.65  # 1 where the network is ignored
    assert found.layers == tuple(LAYERS)


@pytest.fixture(scope="module")
def shuffled() -> SmallCNN:
    return train(steps=40, shuffled=True)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["naflow", "layercam"])
def test_a_network_of_random_labels_has_other_maps(method: str, shuffled: SmallCNN) -> None:
    found = compared(maker(method), trained(), {"shuffled": shuffled}, synthetic(12))
    before, after = found.energies()
    assert after.mean < 0.7 * before.mean
    assert found.similarities()[0].mean < 0.6


@pytest.mark.parametrize("method", ["naflow", "layercam"])
def test_maps_of_another_class_differ(method: str) -> None:
    explainer = nf.compile(trained(), synthetic(1).images, method=method, layers=LAYERS)
    assert by_class(explainer, synthetic(12), classes=6).similarities()[0].mean < 0.7


def test_an_explainer_that_ignores_the_network_fails_the_checks() -> None:
    def edges(model: nn.Module) -> Explain:
        return lambda images, target: (images[:, :, 1:] - images[:, :, :-1]).abs().sum(1)

    found = cascading(edges, SmallCNN(4), synthetic(4), (1.0,))
    assert found.similarities()[0].mean == pytest.approx(1)


class Recorded:
    """A Quantus metric's way to call an explain_func, without Quantus."""

    def __init__(self, model: nn.Module) -> None:
        self.data, self.model = synthetic(3), model

    def __call__(self, **options: object) -> Tensor:
        given = (self.model, self.data.images.numpy(), self.data.target.numpy())
        return torch.from_numpy(nf.quantus_explain_func(*given, **options))  # type: ignore[arg-type]


def test_quantus_explain_func_gives_upsampled_maps() -> None:
    network = SmallCNN(4).eval()
    call = Recorded(network)
    maps = call(layer="2.add", method="layercam", softmax=True)
    explainer = nf.compile(network, call.data.images[:1], method="layercam", layers=["2.add"])
    expected = explainer(call.data.images, call.data.target).upsampled()["2.add"]
    assert maps.shape == (3, 1, 48, 48)
    torch.testing.assert_close(maps[:, 0], expected, atol=1e-6, rtol=1e-4)
    with torch.no_grad():
        list(network.parameters())[-2].mul_(-1)  # in place: the explainer must be made anew
    assert not torch.allclose(call(layer="2.add", method="layercam"), maps)
    with pytest.raises(EvaluationError, match="options are those of nf.compile"):
        call(layer="2.add", colour="red")


def test_quantus_metrics_take_it() -> None:
    quantus = pytest.importorskip("quantus")
    data = synthetic(2)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 6))
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), head
    ).eval()
    call = {"model": network, "x_batch": data.images.numpy(), "y_batch": data.target.numpy(),
            "explain_func": nf.quantus_explain_func,
            "explain_func_kwargs": {"layer": "1", "method": "hirescam"}}  # fmt: skip
    options = {"disable_warnings": True, "display_progressbar": False}
    assert len(quantus.MaxSensitivity(nr_samples=2, **options)(**call)) == 2
    assert data.evidence is not None
    masks = data.evidence[:, None].numpy()
    energy = quantus.RelevanceMassAccuracy(normalise=False, abs=False, **options)(
        **call, s_batch=masks
    )
    explainer = nf.compile(network, data.images[:1], method="hirescam", layers=["1"])
    found = nf.evaluate({"a": explainer}, data, ["energy"])
    np.testing.assert_allclose(found.values("a", "energy"), energy, rtol=1e-3)
    scores = quantus.MPRT(return_last_correlation=True, **options)(**call)
    assert np.mean(scores) < 0.9
