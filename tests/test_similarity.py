"""Similarity targets against formulas written by hand, few-shot episodes, retrieval."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from shelf import Reference, fill, images, relative_error, unit
from torch import Tensor, nn

import naflow_fx as nf
from naflow_fx.errors import InputError, TargetError
from naflow_fx.pairs.embedding import compare
from naflow_fx.rules import pair_side


class Encoder(nn.Module):
    """A small encoder; `end` is what happens to its feature map [N, 6, 4, 4]."""

    def __init__(self, end: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv1, self.bn, self.conv2 = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3)
        self.end = end

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.end(F.relu(self.conv2(F.relu(self.bn(self.conv1(x))))))
        return found


def pooled(x: Tensor) -> Tensor:
    return x.mean((2, 3))


ENDS: dict[str, Callable[[Tensor], Tensor]] = {
    "plain": pooled,
    "normalize": lambda x: F.normalize(pooled(x), dim=1),
    "pow_sum_div": lambda x: pooled(x).div(pooled(x).pow(2).sum(1, keepdim=True).pow(0.5)),
    "norm": lambda x: pooled(x) / pooled(x).norm(p=2, dim=1, keepdim=True).clamp_min(1e-6),
    "map": lambda x: x,
}


class Normalised(Encoder):
    """The norm is of the very tensor that is divided."""

    def __init__(self, kind: str) -> None:
        super().__init__(pooled)
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        v = super().forward(x)
        if self.kind == "normalize":
            return F.normalize(v)
        if self.kind == "norm":
            length: Tensor = v.norm(p=2, dim=1, keepdim=True)
            return v / length.clamp_min(1e-6)
        scaled: Tensor = v.div(v.pow(2).sum(1, keepdim=True).pow(0.5))
        return scaled


def encoder(kind: str = "plain") -> nn.Module:
    made = Normalised(kind) if kind in ("normalize", "norm", "pow_sum_div") else Encoder(ENDS[kind])
    return fill(made).double()


QUERY, SUPPORT = images((3, 8, 8)), unit("support", (2, 3, 8, 8)).double()


def by_hand(model: nn.Module, score: Callable[[Tensor, Tensor], Tensor], held: bool = True) -> Any:
    """Autograd's d score / d value of every intermediate, of the query and of the support."""
    sides = [Reference(model, x) for x in (QUERY, SUPPORT)]
    with torch.enable_grad():
        q, s = (side.output.flatten(1) for side in sides)
        total = score(q, s).sum()
        return [
            dict(zip(side.values, torch.autograd.grad(
                total, list(side.values.values()), allow_unused=True, retain_graph=True
            ), strict=True))
            for side in sides
        ]  # fmt: skip


def cosine(q: Tensor, s: Tensor) -> Tensor:
    """Eqs. 17, 18, the denominator held constant."""
    total = (q * s).sum(1, keepdim=True)
    return (q * s / total.abs().detach()).sum(1)


METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cosine": cosine,
    "dot": lambda q, s: (q * s).sum(1),
    "euclidean": lambda q, s: -(q - s).square().sum(1),
}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["plain", "map"])
def test_importance_is_autograds(metric: Any, kind: str) -> None:
    model = encoder(kind)
    explainer = nf.compile(model, QUERY, target=nf.Similarity(metric), keep="importance")
    flow = explainer(QUERY, SUPPORT)
    for side, wanted in zip((flow.query, flow.support), by_hand(model, METRICS[metric]),
                            strict=True):  # fmt: skip
        assert len(side.maps) >= 6
        for site, found in side.importance.items():
            assert relative_error(found, wanted[site]) < 1e-9, site


def test_a_callable_is_the_metric_it_writes_out() -> None:
    model = encoder()
    written = nf.compile(model, QUERY, target=nf.Similarity(lambda q, s: -(q - s).pow(2).sum(1)))
    named = nf.compile(model, QUERY, target=nf.Similarity("euclidean"))
    found, wanted = written(QUERY, SUPPORT), named(QUERY, SUPPORT)
    assert found.contribution is None
    assert relative_error(found.similarity, wanted.similarity) < 1e-12
    for site, values in wanted.query.maps.items():
        assert relative_error(found.query.maps[site], values) < 1e-9, site


def test_live_denominator_explains_nothing() -> None:
    """Eq. 21 as printed: the sum of omega is 1 or -1, whatever the image."""

    def live(q: Tensor, s: Tensor) -> Tensor:
        return (q * s).sum(1) / (q * s).sum(1).abs()

    model = encoder()
    literal = nf.compile(model, QUERY, target=nf.Similarity(live), keep="importance")
    detached = nf.compile(model, QUERY, target=nf.Similarity("cosine"), keep="importance")
    zero, ours = literal(QUERY, SUPPORT), detached(QUERY, SUPPORT)
    for site, values in ours.query.importance.items():
        assert values.abs().max() > 0
        assert zero.query.importance[site].abs().max() < 1e-12 * values.abs().max(), site


def test_contributions_sum_to_the_sign() -> None:
    """omega of similar embeddings sums to 1, of opposite ones to -1."""
    centre = (
        fill(Encoder(pooled)).double().eval()(unit("many", (12, 3, 8, 8)).double()).mean(0).detach()
    )
    model = Encoder(lambda x: x.mean((2, 3)) - centre)
    fill(model).double()
    found = nf.compile(model, QUERY, target=nf.Similarity())
    x = unit("many", (12, 3, 8, 8)).double()
    flow = found(x, x.roll(1, 0))
    assert flow.contribution is not None
    total, cos = flow.contribution.sum(1), flow.similarity
    assert {1, -1} == {round(float(t)) for t in total}
    assert torch.allclose(total, cos.sign(), atol=1e-9)
    v = model.eval()(x).detach()
    assert torch.allclose(cos, F.cosine_similarity(v, v.roll(1, 0)), atol=1e-9)


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
def test_query_and_support_swap(metric: Any) -> None:
    explainer = nf.compile(encoder(), QUERY, target=nf.Similarity(metric))
    one, other = explainer(QUERY, SUPPORT), explainer(SUPPORT, QUERY)
    for a, b in ((one.query, other.support), (one.support, other.query)):
        for site in a.maps:
            assert relative_error(a.maps[site], b.maps[site]) < 1e-9, site


@pytest.mark.parametrize("kind", ["normalize", "norm", "pow_sum_div"])
def test_final_norm_is_held(kind: str) -> None:
    """Cosine does not see the encoder's normalisation; a live one would give another Lambda."""
    plain = nf.compile(encoder(), QUERY, target=nf.Similarity(), keep="importance")
    normed = nf.compile(encoder(kind), QUERY, target=nf.Similarity(), keep="importance")
    wanted, found = plain(QUERY, SUPPORT), normed(QUERY, SUPPORT)
    assert torch.allclose(found.similarity, wanted.similarity, atol=1e-9)
    for site, values in wanted.query.importance.items():
        assert relative_error(found.query.importance[site], values) < 1e-9, site
    assert torch.allclose(found.query.output.norm(dim=1), torch.ones(2).double())
    live = by_hand(encoder(kind), cosine)[0]
    assert relative_error(found.query.importance["conv1"], live["conv1"]) > 0.01


def test_several_shots_are_averaged() -> None:
    model = encoder()
    shots = unit("shots", (2, 3, 3, 8, 8)).double()
    explainer = nf.compile(model, QUERY, target=nf.Similarity(shots=3), keep="importance")
    flow = explainer(QUERY, shots)
    assert (len(flow), len(flow.query), len(flow.support)) == (2, 2, 6)
    run = Reference(model, shots.flatten(0, 1))
    with torch.enable_grad():
        mean = run.output.reshape(2, 3, -1).mean(1)
        score = cosine(model.eval()(QUERY).detach(), mean).sum()
        wanted = torch.autograd.grad(score, run.values["conv2"])[0]
    assert relative_error(flow.support.importance["conv2"], wanted) < 1e-9
    second = flow[1]
    assert torch.equal(second.support.maps["conv1"], flow.support.maps["conv1"][3:])


@pytest.mark.parametrize("support", [False, True])
@pytest.mark.parametrize("shots", [1, 3])
def test_pair_side_keeps_its_laws(support: bool, shots: int) -> None:
    """Rows of a batch: A^T is autograd's, A P A = A and P A P = P, P A symmetric."""
    x = torch.randn(2 * (1 + shots), 5, dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        y = pair_side.forward(x, support, shots)
        w = torch.randn_like(y)
        wanted = torch.autograd.grad(y, x, w)[0]
    assert torch.allclose(pair_side.transpose(w, support, shots), wanted)
    v, z = torch.randn_like(x), torch.randn_like(y)

    def a(v: Tensor) -> Tensor:
        return pair_side.forward(v, support, shots)

    def p(z: Tensor) -> Tensor:
        return pair_side.inverse(z, support, shots)

    assert torch.allclose(a(p(a(v))), a(v))
    assert torch.allclose(p(a(p(z))), p(z))
    u = torch.randn_like(x)
    assert torch.allclose((p(a(v)) * u).sum(), (v * p(a(u))).sum())


def test_one_support_serves_all_queries() -> None:
    explainer = nf.compile(encoder(), QUERY, target=nf.Similarity())
    together, alone = explainer(QUERY, SUPPORT[:1]), explainer(QUERY[1:], SUPPORT[:1])
    for site, values in alone.query.maps.items():
        assert relative_error(together.query.maps[site][1:], values) < 1e-9


def test_layers_of_a_classifier() -> None:
    class Classifier(Encoder):
        def __init__(self) -> None:
            super().__init__(pooled)
            self.fc = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(super().forward(x))  # type: ignore[no-any-return]

    model = fill(Classifier()).double()
    flows = [
        nf.compile(model, QUERY, target=nf.Similarity(at=at))(QUERY, SUPPORT)
        for at in ("penultimate", "mean")
    ]
    plain = nf.compile(encoder(), QUERY, target=nf.Similarity())(QUERY, SUPPORT)
    for flow in flows:
        assert flow.query.output.shape == (2, 4)
        assert torch.equal(flow.similarity, plain.similarity)
        assert torch.equal(flow.query.maps["conv2"], plain.query.maps["conv2"])
    with pytest.raises(TargetError, match="(?s)no call site is named means.*Did you mean: mean"):
        nf.compile(model, QUERY, target=nf.Similarity(at="means"))
    with pytest.raises(TargetError, match="no fully connected layer"):
        nf.compile(encoder(), QUERY, target=nf.Similarity(at="penultimate"))


def test_pool() -> None:
    mean = nf.compile(encoder("map"), QUERY, target=nf.Similarity(pool="mean"))(QUERY, SUPPORT)
    plain = nf.compile(encoder(), QUERY, target=nf.Similarity(pool="mean"))(QUERY, SUPPORT)
    assert mean.contribution is not None
    assert mean.contribution.shape == (2, 6)
    assert torch.allclose(mean.similarity, plain.similarity)
    assert torch.allclose(mean.query.maps["conv1"], plain.query.maps["conv1"])


def test_copies_and_exports() -> None:
    model = fill(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten())).double()
    explainer = nf.compile(model, QUERY, target=nf.Similarity(shots=2))
    pairs = QUERY, unit("shots", (2, 2, 3, 8, 8)).double()
    wanted = explainer(*pairs)
    for other in (copy.deepcopy(explainer), pickle.loads(pickle.dumps(explainer))):
        assert torch.equal(other(*pairs).query.maps["0"], wanted.query.maps["0"])
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(
        explainer.graph_module, pairs, dynamic_shapes={"query": {0: batch}, "support": {0: batch}}
    ).module()
    three = [torch.cat([x, x[:1]]) for x in pairs]
    found = program(*three)
    assert found["similarity"].shape == (3,)
    assert torch.allclose(found["maps"]["0"][:2], wanted.query.maps["0"])
    assert torch.allclose(found["maps"]["0"][3:7], wanted.support.maps["0"])


@pytest.mark.parametrize(
    ("query", "support", "message"),
    [
        (QUERY, None, "explainer\\(query, support\\)"),
        (QUERY, SUPPORT[:, :, :7], "support: got \\[2, 3, 7, 8\\]"),
        (QUERY.float(), SUPPORT, "query: got torch.float32"),
        (QUERY, torch.cat([SUPPORT, SUPPORT])[:3], "got 3 for 2 queries"),
        (QUERY[:0], SUPPORT[:0], "got 0 for 0 queries"),
    ],
)
def test_pairs_that_do_not_fit(query: Any, support: Any, message: str) -> None:
    explainer = nf.compile(encoder(), QUERY, target=nf.Similarity())
    with pytest.raises(InputError, match=message):
        explainer(query, support)


def test_zeros_have_no_similarity() -> None:
    class Sums(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.relu(x).mean((2, 3))

    explainer = nf.compile(Sums(), QUERY, target=nf.Similarity())
    with pytest.raises(InputError, match=r"pairs \[1\]: an embedding is all zero"):
        explainer(torch.stack([QUERY[0], -QUERY[1].abs()]), SUPPORT)
    red, blue = torch.zeros(1, 3, 8, 8).double(), torch.zeros(1, 3, 8, 8).double()
    red[:, 0], blue[:, 2] = 1, 1
    with pytest.raises(InputError, match=r"pairs \[0\]: the embeddings are orthogonal.*Eq. 18"):
        explainer(red, blue)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"metric": "angle"}, "metric='angle'"), ({"pool": "max"}, "pool='max'"),
     ({"shots": 0}, "shots=0"), ({"shots": True}, "shots=True")],
)  # fmt: skip
def test_similarities_that_do_not_exist(options: Any, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        nf.Similarity(**options)


@pytest.mark.parametrize("metric", [*METRICS, lambda q, s: -(q - s).abs().sum(1)])
def test_compare_is_the_metric_of_each_pair(metric: Any) -> None:
    q, s = torch.randn(3, 5).double(), torch.randn(4, 5).double()
    found = compare(q, s, nf.Similarity(metric))
    written: Any = {"cosine": F.cosine_similarity, **METRICS, "cos": None}.get(metric, metric)
    written = F.cosine_similarity if metric == "cosine" else written
    for i in range(3):
        assert torch.allclose(found[i], written(q[i : i + 1].expand(4, -1), s))


def test_compare_refuses_other_lengths() -> None:
    with pytest.raises(InputError, match=r"got \[2, 4\] and \[3, 5\]"):
        compare(torch.ones(2, 4), torch.ones(3, 5), nf.Similarity())


def test_few_shot() -> None:
    model = encoder()
    support = unit("episode", (5, 2, 3, 8, 8)).double()
    query = support[[3, 0, 4], 0] + 0.05 * unit("noise", (3, 3, 8, 8)).double()
    found = nf.few_shot(model, support, query, temperature=7.0)
    with torch.no_grad():
        means = model.eval()(support.flatten(0, 1)).reshape(5, 2, -1).mean(1)
        wanted = 7 * F.cosine_similarity(model(query)[:, None], means[None], dim=2)
    assert torch.allclose(found.logits, wanted)
    assert torch.equal(found.prediction, wanted.argmax(1))
    assert found.flow is not None
    assert torch.allclose(found.flow.similarity * 7, wanted.amax(1))
    against = nf.few_shot(model, support, query, match=torch.tensor([1, 1, 1]))
    assert against.flow is not None
    assert torch.allclose(10 / 7 * wanted[:, 1], 10 * against.flow.similarity)
    assert nf.few_shot(model, support, query, explain=False).flow is None
    with pytest.raises(InputError, match="wanted \\[way, shot, C, H, W\\]"):
        nf.few_shot(model, support[0], query)
    with pytest.raises(InputError, match=r"queries \[0, 3, "):
        nf.few_shot(model, support, query[:0])
    with pytest.raises(InputError, match="3 classes below 5"):
        nf.few_shot(model, support, query, match=torch.tensor([1, 5, 1]))


def test_retrieve() -> None:
    model = encoder()
    gallery = unit("gallery", (9, 3, 8, 8)).double()
    query = gallery[[4, 7]] + 0.01 * unit("noise", (2, 3, 8, 8)).double()
    labels = torch.tensor([0, 1, 2] * 3)
    found = nf.retrieve(model, query, gallery, 3, labels=labels, block=2)
    with torch.no_grad():
        rows = model.eval()(gallery)
        wanted = F.cosine_similarity(model(query)[:, None], rows[None], dim=2)
    top = wanted.topk(3, dim=1)
    assert torch.equal(found.index, top.indices)
    assert found.index[:, 0].tolist() == [4, 7]
    votes = torch.zeros(2, 3).double()
    for i in range(2):
        for hit, value in zip(top.indices[i], top.values[i], strict=True):
            votes[i, labels[hit]] += torch.exp(value / 0.07)
    assert found.votes is not None
    assert torch.allclose(found.votes, votes / votes.sum(1, keepdim=True))
    pairs = found.explain(1)
    assert torch.allclose(pairs.similarity, top.values[1])
    assert len(found.explain(0, hits=2)) == 2
    as_dataset = nf.retrieve(model, query, [(x, 0) for x in gallery], 3)
    assert torch.equal(as_dataset.index, found.index)
    known = nf.retrieve(model, query, rows, 3)
    assert torch.equal(known.index, found.index)
    with pytest.raises(InputError, match="given as embeddings"):
        known.explain(0)
    for wrong, message in (
        ({"top_k": 10}, r"retrieve\(top_k=10\): wanted 1 to 9"),
        ({"labels": labels[:4]}, "labels: got \\[4\\] for a gallery of 9"),
        ({"similarity": nf.Similarity(shots=2)}, r"retrieve\(shots=2\): wanted 1"),
    ):
        with pytest.raises(InputError, match=message):
            nf.retrieve(model, query, gallery, **wrong)
    with pytest.raises(InputError, match=r"\[2, 6\] and \[9, 5\]"):
        nf.retrieve(model, query, rows[:, :5])
    with pytest.raises(InputError, match="query: got no image"):
        nf.retrieve(model, query[:0], gallery)
    with pytest.raises(InputError, match=r"gallery: got images \[3, 7, 8\]"):
        nf.retrieve(model, query, gallery[:, :, :7])
