from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import naflow_fx as nf
from naflow_fx.errors import EvaluationError
from naflow_fx.evaluation.bootstrap import estimate
from naflow_fx.evaluation.data import EvaluationSet, box_mask
from naflow_fx.evaluation.fidelity import KEEP
from naflow_fx.evaluation.measure import Effort, as_maps, evaluate
from naflow_fx.evaluation.metrics import METRICS
from naflow_fx.evaluation.peers import rise
from naflow_fx.evaluation.result import Evaluation
from naflow_fx.evaluation.sanity import randomised
from naflow_fx.evaluation.synthetic import SmallCNN, synthetic

LAYERS = ["0.0", "1.add", "3.relu_1"]


@pytest.fixture(scope="module")
def network() -> SmallCNN:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SmallCNN(width=4).eval()


@pytest.fixture(scope="module")
def found(network: SmallCNN) -> Evaluation:
    data = synthetic(6)
    made = {m: nf.compile(network, data.images[:1], method=m, layers=LAYERS, keep=keep)
            for m, keep in (("naflow", KEEP), ("layercam", ()))}  # fmt: skip
    return evaluate(made, data, list(METRICS), model=network,
                    effort=Effort(batch=4, steps=2, percentiles=(50,), draws=1))  # fmt: skip


def test_every_metric_has_a_figure_for_each_layer_and_image(found: Evaluation) -> None:
    cascade = {"residual", "norm_ratio", "fidelity"}
    assert found.metrics == list(METRICS)
    assert set(found.scores["naflow"]) == set(METRICS)
    assert set(found.scores["layercam"]) == set(METRICS) - cascade
    for of_method in found.scores.values():
        for metric, scores in of_method.items():
            assert scores.values.shape == (len(scores.layers), 6), metric
            assert np.isfinite(scores.values).all(), metric
            assert list(scores.layers) == LAYERS or metric in cascade
    i_d, insertion, deletion = (found.values("layercam", m)
                                for m in ("i_d", "insertion", "deletion"))  # fmt: skip
    np.testing.assert_allclose(i_d, insertion - deletion, atol=1e-6)


def test_figures_are_those_of_the_single_functions(found: Evaluation, network: SmallCNN) -> None:
    from naflow_fx.evaluation.localisation import energy

    data = synthetic(6)
    maps = nf.compile(network, data.images[:1], method="layercam")(data.images, data.target).maps
    assert data.evidence is not None
    for place, layer in enumerate(LAYERS):
        ours = found.scores["layercam"]["energy"].values[place]
        np.testing.assert_allclose(ours, energy(maps[layer], data.evidence), rtol=1e-4)


def test_depth_and_fifths(found: Evaluation) -> None:
    assert found.depth == {"0.0": 0.0, "1.add": 0.5, "3.relu_1": 1.0}
    assert [found.fifth(name) for name in LAYERS] == [0, 2, 4]
    values = found.scores["layercam"]["energy"].values
    np.testing.assert_array_equal(found.values("layercam", "energy", 2), values[1])
    assert np.isnan(found.values("layercam", "energy", 1)).all()
    head, row = found.fifths("energy")[0], found.fifths("energy")[2]
    assert (len(head), row[0], row[2]) == (7, "layercam", "")


def test_json_gives_the_result_back(found: Evaluation) -> None:
    again = Evaluation.from_json(found.to_json())
    assert str(again) == str(found)
    assert again.depth == found.depth and again.images == found.images


def test_curves_are_drawn_with_the_backend_left_as_it_is(found: Evaluation, tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    before = matplotlib.get_backend()
    matplotlib.use("svg")
    try:
        picture = found.plot(tmp_path / "curves.png", ["energy"])
        assert matplotlib.get_backend() == "svg" and picture.stat().st_size > 10_000
    finally:
        matplotlib.use(before)


def test_merged(found: Evaluation) -> None:
    both = found.merged(Evaluation.from_json(found.to_json() | {"scores": {}}))
    assert both.methods == found.methods
    with pytest.raises(EvaluationError, match="other images"):
        found.merged(Evaluation.from_json(found.to_json() | {"dataset": "else"}))


def test_layers_of_one_metric_only(network: SmallCNN) -> None:
    data = synthetic(2)
    explainer = nf.compile(network, data.images[:1], method="hirescam", layers=LAYERS)
    some = evaluate({"a": explainer}, data, {"energy": None, "entropy": ["3.*", "0.0"]})
    assert some.scores["a"]["energy"].layers == tuple(LAYERS)
    assert some.scores["a"]["entropy"].layers == ("0.0", "3.relu_1")
    both = evaluate({"a": explainer}, data, {"insertion": ["0.0"], "i_d": None}, model=network)
    assert both.scores["a"]["insertion"].layers == ("0.0",)
    assert both.scores["a"]["i_d"].layers == tuple(LAYERS)


def test_the_model_is_left_as_it_is(network: SmallCNN) -> None:
    training = SmallCNN(width=4).train()
    before = {k: v.clone() for k, v in training.state_dict().items()}
    data = synthetic(2)
    evaluate({"flat": lambda x, t: torch.ones(len(x), 4, 4)}, data, ["drop"], model=training)
    assert all(m.training for m in training.modules())
    assert all(torch.equal(v, before[k]) for k, v in training.state_dict().items())


def test_target_of_minus_one_is_the_predicted_class(network: SmallCNN) -> None:
    data = synthetic(3)
    unknown = EvaluationSet(data.images, torch.full((3,), -1), None, data.names, data.groups)
    seen: list[Tensor] = []

    def explain(images: Tensor, target: Tensor) -> Tensor:
        seen.append(target)
        return torch.ones(len(images), 2, 2)

    evaluate({"a": explain}, unknown, ["entropy"], model=network)
    with torch.no_grad():
        assert torch.equal(torch.cat(seen), network(data.images).argmax(1))
    with pytest.raises(EvaluationError, match="need model="):
        evaluate({"a": explain}, unknown, ["entropy"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d, m: evaluate({}, d), "at least one explainer"),
        (
            lambda d, m: evaluate({"a": m}, d, ["speed"]),
            r"metrics=\['speed'\]\): wanted one of 'energy'",
        ),
        (lambda d, m: evaluate({"a": m}, d, ["i_d"]), "i_d need model="),
        (lambda d, m: evaluate({"a": lambda x, t: 3}, d, ["energy"]), "gave no maps.*got int"),
        (lambda d, m: evaluate({"a": lambda x, t: x}, d, ["energy"]), "gave no maps"),
        (lambda d, m: evaluate({"a": m}, d, effort=Effort(batch=0)), r"Effort\(batch=0\): wanted"),
        (lambda d, m: evaluate({"a": m}, d, effort=Effort(steps=0)), r"Effort\(steps=0\): wanted"),
        (lambda d, m: Effort(percentiles=()), "between 0 and 100, at least one"),
        (lambda d, m: synthetic(0), r"synthetic\(count=0\): wanted an integer >= 1"),
    ],
)
def test_what_can_not_be_measured_is_told(
    change: Callable[[EvaluationSet, nn.Module], Evaluation], message: str
) -> None:
    with pytest.raises(EvaluationError, match=message):
        change(synthetic(2), nn.Identity())


def test_a_network_that_deepcopy_refuses_is_measured(network: SmallCNN) -> None:
    data, normed = synthetic(2), copy.deepcopy(network)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is a newer one
        layer: Any = normed[1].conv1
        nn.utils.weight_norm(layer)
    normed(data.images)
    with pytest.raises(RuntimeError):
        copy.deepcopy(normed)
    flat = {"flat": lambda x, t: x.mean(1)}
    wanted = evaluate(flat, data, ["drop"], model=network).values("flat", "drop")
    found = evaluate(flat, data, ["drop"], model=normed).values("flat", "drop")
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert rise(normed, masks=2)(data.images, data.target).shape == (2, 48, 48)
    before = normed(data.images)
    randomised(normed, 1.0)
    assert torch.equal(normed(data.images), before)


def test_a_layer_without_a_given_depth_has_its_place() -> None:
    flat = {"a": lambda x, t: {"first": x[:, 0], "second": x[:, 1]}}
    found = evaluate(flat, synthetic(2), ["energy"], depth={"first": 0.5})
    assert found.depth == {"first": 0.5, "second": 1.0} and found.fifths("energy")[1][5]


def test_without_boxes_localisation_is_refused() -> None:
    bare = EvaluationSet(torch.ones(1, 3, 4, 4), torch.tensor([0]), None, ("a",), torch.tensor([0]))
    with pytest.raises(EvaluationError, match="has no boxes or masks"):
        evaluate({"a": lambda x, t: x[:, 0]}, bare, ["energy"])


@pytest.mark.parametrize(
    ("index", "kept"),
    [
        (1, [1]),
        (slice(None, None, -2), [3, 1]),
        ([0, 3], [0, 3]),
        (torch.tensor([True, False, True, False]), [0, 2]),
    ],
)
def test_some_images_of_a_set(index: Any, kept: list[int]) -> None:
    whole = synthetic(4)
    names: Any = list(whole.names)
    some = replace(whole, names=names)[index]
    assert some.names == tuple(whole.names[i] for i in kept)
    assert torch.equal(some.images, whole.images[kept]) and some.groups.tolist() == kept


def test_unknown_figures_are_told(found: Evaluation, tmp_path: Path) -> None:
    calls = (found.rows, partial(found.plot, tmp_path / "a.png"), lambda m: found.fifths(*m))
    for call in calls:
        with pytest.raises(EvaluationError, match="wanted one of 'energy'"):
            call(["speed"])
    assert found.rows("energy") == found.rows(["energy"])
    none = evaluate({"a": lambda x, t: x[:, 0]}, synthetic(2), {"energy": ["no such layer"]})
    with pytest.raises(EvaluationError, match="nothing was measured"):
        none.plot(tmp_path / "a.png")
    with pytest.raises(EvaluationError, match=r"no 'residual' of 'layercam'; there are: naflow \("):
        found.mean("layercam", "residual")


def test_bootstrap_interval_covers_the_mean_and_is_paired(found: Evaluation) -> None:
    generator = np.random.default_rng(1)
    hits, width = 0, []
    for _ in range(200):
        sample = generator.normal(0.3, 1.0, 40)
        mean, low, high = estimate(sample, np.arange(40))
        assert mean == pytest.approx(sample.mean())
        hits += low <= 0.3 <= high
        width.append(high - low)
    assert 0.88 <= hits / 200 <= 0.99
    assert np.mean(width) == pytest.approx(2 * 1.96 / 40**0.5, rel=0.1)
    same = found.difference("layercam", "layercam", "energy")
    assert (same.low, same.high) == (0, 0)


def test_views_of_one_photo_are_drawn_together() -> None:
    sample = np.random.default_rng(2).normal(size=20)
    views = np.repeat(sample, 5)
    alone = estimate(sample, np.arange(20))
    together = estimate(views, np.repeat(np.arange(20), 5))
    assert together == pytest.approx(alone)
    assert estimate(views, np.arange(100)).high < alone.high


def test_as_maps_takes_flows_mappings_and_tensors() -> None:
    maps = torch.ones(2, 3, 3)
    assert set(as_maps(maps)) == {"input"} and set(as_maps({"a": maps})) == {"a"}
    assert box_mask([], 2, 2).sum() == 0


@pytest.mark.parametrize("wrong", [
    torch.utils.data.TensorDataset(torch.ones(2, 3, 4, 4), torch.zeros(2)), torch.ones(2, 3, 4, 4),
    [(torch.ones(3, 4, 4), 1)], None,
], ids=lambda wrong: type(wrong).__name__)  # fmt: skip
def test_a_dataset_of_another_kind_is_refused(wrong: Any) -> None:
    words = rf"the dataset is a {type(wrong).__name__}; wanted .*nf.EvaluationSet\(images, target"
    with pytest.raises(EvaluationError, match=words):
        nf.evaluate({"a": lambda images, target: images[:, 0]}, wrong, ["energy"])
    with pytest.raises(EvaluationError, match="images is a list, not a tensor"):
        nf.EvaluationSet([1], torch.zeros(1), None, ("a",), torch.zeros(1))  # type: ignore[arg-type]
