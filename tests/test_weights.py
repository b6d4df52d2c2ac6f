"""Weights that change after compiling: the explainer is that of a fresh compilation."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any, get_args
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from shelf import class_one, fill, images
from small_flow import Small
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import naflow_fx as nf
from naflow_fx.errors import InputError, TraceError
from naflow_fx.guards.weights import Weights
from naflow_fx.options import Method

X = images((3, 10, 12))
FEW = nf.Inverse(steps=2)


class Net(Small):
    """With a plain tensor that forward reads, another that it leaves behind, and a mask."""

    shift: Tensor
    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.shift = torch.zeros(3, 1, 1, dtype=torch.float64)
        self.register_buffer("mask", torch.ones(4, 1, 1, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        self.seen = 1 * x
        x = self.layer1(self.stem(x - self.shift).relu() * self.mask)
        found: Tensor = self.fc(x.mean((2, 3)))
        return found


def net() -> Net:
    made = Net()
    fill(made).double().eval()
    made.state_dict()["mask"].fill_(1.0)
    return made


def trained(model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    optimiser.zero_grad()
    F.cross_entropy(model(X), torch.tensor([0, 2])).backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def other_weights(model: nn.Module) -> dict[str, Tensor]:
    torch.manual_seed(3)
    return {k: v + 0.1 * torch.rand_like(v) if v.is_floating_point() else v
            for k, v in model.state_dict().items()}  # fmt: skip


def train_mode(model: nn.Module) -> None:
    model.train()
    with torch.no_grad():
        model(X * 3 + 1)


@torch.no_grad()
def part(model: Any) -> None:
    model.stem.weight[1] = 0.0


def parametrised(model: Net) -> None:
    parametrizations.weight_norm(model.stem)
    with torch.no_grad():
        model.stem.parametrizations.weight.original0.mul_(2)  # type: ignore[union-attr,operator]


CHANGES: dict[str, Callable[[Any], Any]] = {
    "load_state_dict": lambda m: m.load_state_dict(other_weights(m)),
    "assign": lambda m: m.load_state_dict(other_weights(m), assign=True),
    "SGD": lambda m: trained(m, torch.optim.SGD(m.parameters(), 0.1)),
    "Adam": lambda m: trained(m, torch.optim.Adam(m.parameters(), 0.1)),
    "fused": lambda m: trained(m, torch.optim.Adam(m.parameters(), 0.1, fused=True)),
    "train mode": train_mode,
    "statistics": lambda m: m.layer1[0].bn1.running_var.mul_(4),
    "part": part,
    "parameter": lambda m: setattr(m.stem, "weight", nn.Parameter(m.stem.weight * 2)),
    "module": lambda m: setattr(m, "fc", nn.Linear(4, 5).double()),
    "data": lambda m: setattr(m.stem.weight, "data", m.stem.weight.data * 2),
    "through data": lambda m: m.stem.weight.data.mul_(2),
    "mask": lambda m: m.mask[1].zero_(),
    "plain": lambda m: m.shift.add_(0.5),
    "another plain": lambda m: setattr(m, "shift", m.shift + 0.5),
    "dead channel": lambda m: m.load_state_dict(
        m.state_dict() | {"layer1.0.bn1.weight": torch.tensor([0.0, 1, 1, 1])}),
    "pruned": lambda m: prune.l1_unstructured(m.stem, "weight", 0.5),  # type: ignore[no-untyped-call]
    "parametrised": parametrised,
}  # fmt: skip


def assert_equal(found: nf.AttentionFlow, wanted: nf.AttentionFlow) -> None:
    """The same bytes, in every part."""
    assert torch.equal(found.output, wanted.output) and torch.equal(found.score, wanted.score)
    for part in ("maps", "residual", "norm_ratio", "sigma_max", "importance", "bpfm", "used"):
        a, b = getattr(found, part), getattr(wanted, part)
        assert list(a) == list(b), part
        for name, value in b.items():
            assert torch.equal(a[name], value), (part, name)


@pytest.mark.parametrize("change", CHANGES)
def test_the_maps_are_those_of_a_fresh_compilation(change: str) -> None:
    model, keep = net(), ("importance", "bpfm", "used")
    explainer = nf.compile(model, X, keep=keep, inverse=FEW)
    before, targeted = explainer(X), explainer(X, class_one)
    CHANGES[change](model)
    wanted = nf.compile(model, X, keep=keep, inverse=FEW)
    assert_equal(explainer(X), wanted(X))
    assert_equal(explainer(X, class_one), wanted(X, class_one))
    assert any(not torch.equal(before.maps[k], m) for k, m in explainer(X).maps.items())
    assert not torch.equal(targeted.maps["x"], explainer(X, class_one).maps["x"])


@pytest.mark.parametrize("method", get_args(Method))
def test_every_method(method: str) -> None:
    model = net()
    explainer = nf.compile(model, X, method=method, inverse=FEW if method == "naflow" else None)
    explainer(X)
    CHANGES["SGD"](model)
    CHANGES["train mode"](model)
    assert_equal(explainer(X), nf.compile(model, X, method=method,
                                          inverse=explainer.options.inverse)(X))  # fmt: skip


def normed(model: Net) -> None:
    parametrizations.weight_norm(model.stem)


def old_normed(model: Net) -> None:
    with pytest.warns(FutureWarning, match="deprecated"):
        nn.utils.weight_norm(model.stem)


def pruned(model: Net) -> None:
    prune.random_unstructured(model.stem, "weight", 0.3)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("make", [normed, old_normed, pruned])
def test_weights_that_are_computed(make: Callable[[Net], None]) -> None:
    model = net()
    make(model)
    explainer = nf.compile(model, X, inverse=FEW)
    explainer(X)
    trained(model, torch.optim.SGD(model.stem.parameters(), 0.5))
    assert_equal(explainer(X), nf.compile(model, X, inverse=FEW)(X))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_moves_takes_its_explainer_along(dtype: torch.dtype) -> None:
    model = fill(Small()).double().eval()
    explainer = nf.compile(model, X, inverse=FEW)
    explainer(X)
    model.to(dtype)
    assert_equal(explainer(X.to(dtype)), nf.compile(model, X.to(dtype), inverse=FEW)(X.to(dtype)))
    with pytest.raises(InputError, match="this explainer computes in"):
        explainer(X)


def test_an_explainer_that_moved_stays_there() -> None:
    model: Any = fill(Small()).eval()
    explainer = nf.compile(model, X.float(), inverse=FEW)
    explainer.double()(X)
    part(model)
    assert model.stem.weight.dtype == torch.float32
    wanted = nf.compile(model, X.float(), inverse=FEW).double()
    assert_equal(explainer(X), wanted(X))


def test_pairs() -> None:
    model, similarity = net(), nf.Similarity(at="penultimate")
    explainer = nf.compile(model, X, target=similarity, inverse=FEW)
    explainer(X, X.flip(0))
    CHANGES["SGD"](model)
    found = explainer(X, X.flip(0))
    wanted = nf.compile(model, X, target=similarity, inverse=FEW)(X, X.flip(0))
    assert torch.equal(found.similarity, wanted.similarity)
    assert_equal(found.query, wanted.query)
    assert_equal(found.support, wanted.support)


def test_decomposition_is_of_the_weights_as_they_are() -> None:
    model, other = net(), net()
    before = nf.decompose(model, X[:1]).to_json()
    CHANGES["SGD"](model)
    other.load_state_dict(model.state_dict())
    found, wanted = (nf.decompose(m, X[:1]).to_json() for m in (model, other))
    assert found == wanted != before


def test_an_explainer_is_pickled_as_it_is_now() -> None:
    model = fill(Small()).double().eval()
    explainer = nf.compile(model, X, inverse=FEW)
    model.float()
    loaded = pickle.loads(pickle.dumps(explainer))
    assert_equal(loaded(X.float()), explainer(X.float()))


def test_a_copy_follows_the_model_too() -> None:
    model = net()
    explainer = copy.deepcopy(nf.compile(model, X, inverse=FEW))
    CHANGES["SGD"](model)
    assert_equal(explainer(X), nf.compile(model, X, inverse=FEW)(X))


def test_what_is_read_of_an_explainer_is_of_the_weights_now() -> None:
    model = net()
    explainer = nf.compile(model, X, inverse=FEW)
    CHANGES["module"](model)
    result = explainer.graph_module(X, torch.full((2,), -1))
    assert torch.equal(result["output"], model(X)) and result["output"].shape == (2, 5)


def test_nothing_is_compiled_while_nothing_changes() -> None:
    model = net()
    explainer = nf.compile(model, X, inverse=FEW)
    with patch.object(explainer, "_build", side_effect=AssertionError):
        for mode in (True, False):
            model.train(mode).requires_grad_(mode)
            explainer(X)
            explainer.graph_module.print_readable(print_output=False)
        model(X)  # leaves a tensor behind, which forward doesn't read
        explainer(X)
        old = copy.deepcopy(model.state_dict())
        assert not explainer._weights.changed()
    model.load_state_dict(old)  # counted as written to; then nothing is
    explainer(X)
    with patch.object(explainer, "_build", side_effect=AssertionError):
        explainer(X)


def test_a_weight_that_hooks_make_at_every_call_is_no_change() -> None:
    model = net()
    prune.random_unstructured(model.stem, "weight", 0.3)  # type: ignore[no-untyped-call]
    explainer = nf.compile(model, X, inverse=FEW)
    model(X)
    assert not explainer._weights.changed()


def test_weights_that_are_no_numbers_are_no_change() -> None:
    model = nn.Linear(2, 2)
    nn.init.constant_(model.weight, torch.nan)
    assert not Weights(model).changed()


def test_a_change_that_cannot_be_followed_says_so_at_every_call() -> None:
    model = net()
    explainer = nf.compile(model, X, inverse=FEW)
    model.fc = nn.LazyLinear(3)
    for _ in range(2):
        with pytest.raises(TraceError, match="fc .* is lazy"):
            explainer(X)
    model.fc = nn.Linear(4, 3).double()
    assert_equal(explainer(X), nf.compile(model, X, inverse=FEW)(X))


@pytest.mark.parametrize("front", ["export", "graph"])
def test_programs_and_graphs_as_models(front: str) -> None:
    model = fill(Small()).double().eval()
    given: Any = torch.fx.symbolic_trace(model) if front == "graph" else torch.export.export(
        model, (X,), dynamic_shapes=({0: torch.export.Dim.AUTO},))  # fmt: skip
    explainer = nf.compile(given, X, inverse=FEW)
    explainer(X)
    own = given.state_dict["stem.weight"] if front == "export" else given.stem.weight
    with torch.no_grad():
        own.mul_(2)
    assert_equal(explainer(X), nf.compile(given, X, inverse=FEW)(X))


def test_only_the_last_targets_are_kept() -> None:
    with patch("naflow_fx.explainer.KEPT", 2):
        explainer = nf.compile(net(), X, layers="stem", method="layercam")
    for i in range(3):
        explainer(X, lambda output, i=i: output[:, i])
        assert explainer._of_target.cache_info().currsize == min(i + 1, 2)
