"""Hierarchical decomposition: evidence, what is conserved, its layers, its cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from shelf import (
    HAZARDS,
    Reference,
    class_one,
    densenet,
    hazard,
    hazard_images,
    images,
    network,
    score_of,
)
from torch import Tensor, nn

import naflow_fx as nf
from naflow_fx.decomposition import grow
from naflow_fx.models.preprocess import open_photo

TOLERANCE = 1e-9


def gap(found: nf.Decomposition) -> float:
    """max over parents of |children + remainder + bias - parent|, over the largest term."""
    worst = 0.0
    for node, facts in found.tree.nodes(data=True):
        if "bias" in facts:
            parts = [found.tree.nodes[c]["evidence"] for c in found.tree.successors(node)]
            terms = [*parts, facts["remainder"], *facts["constants"].values()]
            scale = max(map(abs, [facts["evidence"], *terms]))
            worst = max(worst, abs(sum(terms) - facts["evidence"]) / max(scale, 1e-300))
    return worst


def test_two_layers_by_hand() -> None:
    """score = 2 relu(3 x0 + 1) + 1 relu(-x0 - 5 x1) + 7, on one pixel."""
    first, second = nn.Conv2d(2, 2, 1).double(), nn.Conv2d(2, 1, 1).double()
    model = nn.Sequential(first, nn.ReLU(), second, nn.Flatten())
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[3.0, 0.0], [-1.0, -5.0]])[..., None, None])
        second.weight.copy_(torch.tensor([[2.0, 1.0]])[..., None, None])
        for layer, bias in ((first, [1.0, 0.0]), (second, [7.0])):
            assert layer.bias is not None
            layer.bias.copy_(torch.tensor(bias))
    found = nf.decompose(model, torch.tensor([[[4.0]], [[-3.0]]]).double(), layers=["1", "input"],
                         target=lambda output: output[:, 0])  # fmt: skip
    nodes = found.tree.nodes
    assert [nodes[n]["evidence"] for n in ("root", "1", "2")] == [44, 26, 11]
    assert (nodes["root"]["remainder"], nodes["root"]["bias"]) == (0, 7)
    assert (nodes["1"]["bias"], nodes["2"]["bias"]) == (2, 0)
    assert [(nodes[n]["channel"], nodes[n]["evidence"]) for n in ("1.1", "2.1")] == [
        (0, 24),
        (1, 15),
    ]
    assert (nodes["1"]["remainder"], nodes["2"]["remainder"]) == (0, -4)
    assert nodes["2.1"]["share"] == 15 / 11 and set(nodes) == {"root", "1", "2", "1.1", "2.1"}


@pytest.mark.parametrize("make", [lambda: network("resnet18"), densenet])
def test_evidence_equals_autograd_at_every_node(make: Callable[[], nn.Module]) -> None:
    """One backward pass a node, of the definition, against a few batches."""
    model, x = make(), images((3, 32, 32), batch=1)
    found = nf.decompose(model, x, target=class_one, top_k=2)
    depth = {layer: i for i, layer in enumerate(found.layers)}
    decisions: dict[str, Tensor] = {}
    checked = 0
    reference = Reference(model, x)
    values, decisions["root"] = reference.values, reference.output[:, 1].sum()
    for node in found.tree:
        if node != "root":
            (parent,) = found.tree.predecessors(node)
            facts = found.tree.nodes[node]
            value = values[facts["layer"]]
            (w,) = torch.autograd.grad(decisions[parent], value, retain_graph=True)
            evidence = (w * value).sum((0, 2, 3))
            order = evidence.argsort(descending=True).tolist()
            rank = int(node.rsplit(".", 1)[-1]) - 1
            assert facts["channel"] == order[rank]
            torch.testing.assert_close(facts["evidence"], evidence[order[rank]].item(), rtol=1e-9,
                                       atol=1e-12)  # fmt: skip
            picture = (w * value)[0, facts["channel"]].relu().detach()
            torch.testing.assert_close(facts["map"], picture, rtol=1e-9, atol=1e-12)
            channel = facts["channel"]
            decisions[node] = (w.detach()[:, channel] * value[:, channel]).sum()
            checked += depth[facts["layer"]] == len(depth) - 1
    assert checked >= 6 and gap(found) < TOLERANCE


@pytest.mark.slow
def test_evidence_is_conserved_on_the_bundled_model() -> None:
    """ReLU6 and batch norm: what they cut off or add is in the bias, by name."""
    model = nf.models.build("efficientnet_lite0", pretrained=True).double()
    prepare = nf.models.card("efficientnet_lite0").preprocessing
    found = nf.decompose(model, prepare(open_photo("examples/coffee.png")).double())
    assert found.layers == ("head_act", "blocks.10.add", "blocks.4.add", "blocks.2.add")
    assert (found.target, len(found.tree)) == (967, 1 + 3 + 9 + 27 + 81)
    assert gap(found) < TOLERANCE
    assert set(found.tree.nodes["1"]["constants"]) == {"batch_norm", "hardtanh"}
    assert found.tree.nodes["root"]["constants"].keys() == {"linear"}


@pytest.mark.parametrize("name", [name for name in HAZARDS if name != "signal"])
def test_evidence_is_conserved_on_hazards(name: str) -> None:
    """Every operator of the shelf, smooth ones by their tangents."""
    found = nf.decompose(hazard(name), hazard_images(name, batch=1), target=score_of(name))
    assert gap(found) < TOLERANCE and "bias" in found.tree.nodes["root"]


def test_smooth_operators_are_named_in_the_bias() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.SiLU(), nn.Conv2d(4, 4, 3, bias=False), nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5, bias=False),
    ).double()  # fmt: skip
    torch.manual_seed(0)
    found = nf.decompose(model, 3 * images((3, 12, 12), batch=1), layers=["3", "0"])
    assert found.tree.nodes["root"]["constants"] == {}
    assert found.tree.nodes["1"]["constants"]["silu"] != 0 and gap(found) < TOLERANCE


def test_a_wrong_derivative_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is conserved can fail: a ReLU that passes everything back."""
    import dataclasses

    from naflow_fx.rules import TABLE

    wrong = dataclasses.replace(TABLE.rules["relu"], transpose=lambda w, mask: w)
    monkeypatch.setitem(TABLE.rules, "relu", wrong)
    found = nf.decompose(hazard("in_place"), hazard_images("in_place", batch=1), 1, top_k=2)
    assert gap(found) > 1e-3


def test_batches_of_parents_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = hazard("in_place"), hazard_images("in_place", batch=1)
    together = nf.decompose(model, x, 1)
    monkeypatch.setattr(grow, "ROWS", 2)
    apart = nf.decompose(model, x, 1)
    assert list(apart.tree) == list(together.tree)
    for node in apart.tree:
        one, other = apart.tree.nodes[node], together.tree.nodes[node]
        torch.testing.assert_close(one["evidence"], other["evidence"], rtol=1e-9, atol=0)
        torch.testing.assert_close(one["map"], other["map"], rtol=1e-9, atol=1e-15)


class TestCost:
    def test_one_node_to_the_image_is_one_backward_pass(self) -> None:
        found = nf.decompose(network("resnet18"), images((3, 32, 32), batch=1), 1, ["x"])
        assert found.cost.forward == 1 and found.cost.backward == pytest.approx(1.0, rel=0.01)
        assert (found.cost.rows, found.cost.batches) == (1, 1)

    def test_default_is_less_than_layers_times_top_k_passes(self) -> None:
        found = nf.decompose(network("resnet18"), images((3, 32, 32), batch=1), 1)
        assert (found.cost.rows, found.cost.batches) == (1 + 3 + 9 + 27, 4)
        assert 1 < found.cost.backward < len(found.layers) * 3
        assert found.cost.passes == 1 + found.cost.backward


class TestLayers:
    @pytest.mark.parametrize(
        ("name", "layers"),
        [
            ("resnet18", [f"layer{i}.1.relu_1" for i in (4, 3, 2, 1)]),
            ("mobilenet_v2", ["features.18.2", "features.13.add", "features.6.add",
                              "features.3.add"]),
        ],
    )  # fmt: skip
    def test_default_is_the_ends_of_stages(self, name: str, layers: list[str]) -> None:
        found = nf.decompose(network(name), images((3, 32, 32), batch=1), 1, top_k=1)
        assert list(found.layers) == layers

    def test_globs_take_what_all_paths_pass_in_the_order_of_the_network(self) -> None:
        model, x = network("resnet18"), images((3, 32, 32), batch=1)
        found = nf.decompose(model, x, 1, ["layer2*", "layer4.1.relu_1"], top_k=1)
        assert found.layers == ("layer4.1.relu_1", "layer2.1.relu_1", "layer2.1.add",
                                "layer2.0.relu_1", "layer2.0.add")  # fmt: skip

    def test_a_layer_with_a_path_around_it(self) -> None:
        with pytest.raises(
            nf.NaflowError, match=r"goes around layer2\.1\.conv1.*layer2\.0\.relu_1"
        ):
            nf.decompose(network("resnet18"), images((3, 32, 32), batch=1), 1, ["layer2.1.conv1"])

    def test_a_network_of_one_size(self) -> None:
        body = [m for _ in range(6) for m in (nn.Conv2d(3, 3, 3, padding=1), nn.ReLU())]
        model = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
        found = nf.decompose(model, images((3, 8, 8), batch=1), 1)
        assert len(found.layers) == 4 and gap(found) < TOLERANCE


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": hazard_images("in_place")}, "batch of 2"),
        ({"image": torch.zeros(3, 64)}, "floating point"),
        ({"image": torch.full((3, 12, 12), torch.nan).double()}, "the score is nan"),
        ({"top_k": 0}, "top_k=0"),
        ({"top_k": True}, "top_k=True"),
        ({"top_k": 100}, "more than 10,000 nodes"),
        ({"layers": ["nothing"]}, "no call site is named nothing"),
        ({"target": 5}, "class 5 does not exist"),
        ({"target": nf.Similarity("cosine")}, "not a Similarity"),
    ],
)
def test_errors(options: dict[str, Any], message: str) -> None:
    given = {"image": hazard_images("in_place", batch=1)} | options
    with pytest.raises(nf.NaflowError, match=message):
        nf.decompose(hazard("in_place"), **given)


def test_the_model_is_left_as_it_was() -> None:
    model, x = hazard("in_place").train(), hazard_images("in_place", batch=1)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    nf.decompose(model, x, 1)
    assert model.training and all(p.grad is None for p in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("form", ["graph", "exported"])
def test_other_front_ends(form: str) -> None:
    model, x = hazard("in_place").eval(), hazard_images("in_place", batch=1)
    made: Any = (
        torch.fx.symbolic_trace(model) if form == "graph" else torch.export.export(model, (x,))
    )
    found, wanted = nf.decompose(made, x, 1), nf.decompose(model, x, 1)
    assert found.score == pytest.approx(wanted.score, rel=1e-12) and gap(found) < TOLERANCE
    evidence = [facts["evidence"] for _, facts in found.tree.nodes(data=True)]
    other = [facts["evidence"] for _, facts in wanted.tree.nodes(data=True)]
    assert evidence == pytest.approx(other, rel=1e-9)


def test_nothing_supports_a_black_image() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                          nn.Flatten(), nn.Linear(4, 5)).double()  # fmt: skip
    found = nf.decompose(model, torch.zeros(3, 8, 8).double(), 2)
    assert list(found.tree) == ["root"] and gap(found) < TOLERANCE
