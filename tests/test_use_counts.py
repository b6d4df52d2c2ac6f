"""flow.used and flow.neuron_times (Fig. 3) against brute force on small networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from shelf import Reference, class_one, fill, hazard, hazard_images, images
from torch import Tensor, fx, nn

import naflow_fx as nf

KEEP = ("used", "neuron_times")


def counted(model: nn.Module, x: Tensor, **options: Any) -> nf.AttentionFlow:
    """The flow, by the cheapest method: counts don't depend on it."""
    flow: nf.AttentionFlow = nf.compile(
        model, x, target=class_one, keep=KEEP, method="gradcam", **options
    )(x)
    return flow


class Plain(nn.Module):
    """Strides, a dilation, groups, and a pool with windows that overlap."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, stride=2)
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        self.conv2 = nn.Conv2d(4, 6, 2, dilation=2, groups=2, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.skip = nn.Conv2d(6, 3, 1, stride=2)
        self.head = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.conv1(x).relu())
        x = self.skip(self.norm(self.conv2(x)).relu())
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


class Branches(nn.Module):
    """A residual block with a strided shortcut, then a concatenation of what it is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 3, 3, padding=1)
        self.a = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.b = nn.Conv2d(3, 4, 1, stride=2)
        self.c = nn.Conv2d(4, 2, 3)
        self.d = nn.Conv2d(4, 2, 3)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = (self.a(x).relu() - 0.5 * self.b(x)).relu()
        x = torch.cat([self.c(x).relu(), self.d(x)], 1)
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


MODELS: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "plain": (Plain, (2, 19, 15)),
    "branches": (Branches, (2, 9, 8)),
}


def made(name: str, batch: int = 2) -> tuple[nn.Module, Tensor]:
    kind, shape = MODELS[name]
    return fill(kind()).double(), images(shape, batch)


def jacobian_pattern(output: Tensor, value: Tensor) -> Tensor:
    """Whether output j depends on input i at the captured point, [N, outputs, *value]."""
    found = []
    for column in output.reshape(len(output), -1).unbind(1):
        grad = torch.autograd.grad(column.sum(), value, retain_graph=True, allow_unused=True)[0]
        found.append(torch.zeros_like(value) if grad is None else grad)
    return torch.stack(found, 1) != 0


CASES = [
    ("plain", "skip"),
    ("branches", "cat"),
    *((name, None) for name in ("nested_residual", "dense_block", "inception", "shared_conv")),
]


@pytest.mark.parametrize(("name", "feature"), CASES)
def test_used_is_what_the_feature_node_depends_on(name: str, feature: str | None) -> None:
    model, x = made(name) if name in MODELS else (hazard(name), hazard_images(name))
    flow = counted(model, x)
    feature = feature or list(flow.maps)[-1]
    reference = Reference(model, x)
    weight = torch.randn_like(reference.values[feature])  # no sum of entries of A happens to be 0
    gradients = reference.gradients(
        lambda _: (reference.values[feature] * weight).flatten(1).sum(1)
    )
    for site, found in flow.used.items():
        assert torch.equal(found, gradients[site] != 0), site
    assert found.all() and set(flow.used) == set(flow.maps)  # the feature node itself
    assert any(not used.all() for used in flow.used.values())


class Local(fx.Interpreter):
    """Counts, operator by operator, how many of the given live outputs read each input."""

    def __init__(self, gm: fx.GraphModule, used: dict[str, Tensor]) -> None:
        super().__init__(gm)
        self.used, self.times = used, dict[str, Tensor]()

    def run_node(self, n: fx.Node) -> Any:
        sources = [s for s in n.all_input_nodes if isinstance(self.env.get(s), Tensor)]
        for source in sources:  # a leaf of its own: what lies behind it does not count
            self.env[source] = self.env[source].detach().requires_grad_()
        with torch.enable_grad():
            value = super().run_node(n)
            for source in sources if n.name in self.used else ():
                pattern = jacobian_pattern(value, self.env[source])
                live = self.used[n.name].flatten(1)[(...,) + (None,) * (self.env[source].dim() - 1)]
                part = (pattern & live).sum(1)
                self.times[source.name] = self.times.get(source.name, 0) + part
        return value


@pytest.mark.parametrize("name", [*MODELS])
def test_neuron_times_counts_the_live_outputs_that_read_a_neuron(name: str) -> None:
    model, x = made(name)
    flow = counted(model, x)
    local = Local(fx.symbolic_trace(model.eval()), flow.used)
    local.run(x)
    *inner, last = flow.neuron_times
    for site in inner:
        torch.testing.assert_close(flow.neuron_times[site].long(), local.times[site], msg=site)
        assert torch.equal(flow.neuron_times[site] > 0, flow.used[site])
    assert (flow.neuron_times[last] == 1).all()


def test_a_convolution_reads_corners_less_often() -> None:
    model = fill(nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Flatten(), nn.Linear(32, 2)))
    flow = counted(model.double(), images((1, 4, 4), 1))
    rows = torch.tensor([2, 3, 3, 2])
    assert torch.equal(flow.neuron_times["input"][0, 0], 2 * rows[:, None] * rows)


def test_a_stride_abandons_what_lies_between() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1, stride=2), nn.Flatten(), nn.Linear(9, 2))
    flow = counted(fill(model).double(), images((1, 5, 5)))
    assert flow.used["input"][:, :, ::2, ::2].all() and int(flow.used["input"].sum()) == 18
    torch.testing.assert_close(flow.abandoned["input"], torch.full((2,), 16 / 25).double())


def test_a_gate_is_read_through_and_its_branch_is_captured_whole() -> None:
    flow = counted(hazard("gate"), hazard_images("gate"))
    control = [site for site, times in flow.neuron_times.items() if (times == 1).all()]
    assert len(control) > 1 and all(flow.used[site].all() for site in control)
    assert any(not used.all() for used in flow.used.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_counts_do_not_depend_on_method_dtype_or_batch(dtype: torch.dtype) -> None:
    model, x = made("branches")
    flow = counted(model, x)
    other = nf.compile(model.to(dtype), x.to(dtype), target=class_one, keep="neuron_times",
                       inverse=nf.Inverse(steps=2))  # fmt: skip
    alone = other(x[:1].to(dtype))
    assert not alone.used and not alone.abandoned
    if dtype == torch.float32:  # in lower precision other neurons win
        for site, found in alone.neuron_times.items():
            assert torch.equal(found, flow.neuron_times[site][:1]), site
    assert alone.neuron_times["x"].dtype == torch.int32
    assert 0 < int(alone.neuron_times["x"].max()) <= 9 * 3  # a 3 x 3 kernel, 3 channels


def test_nothing_is_counted_unless_asked_for() -> None:
    model, x = made("plain")
    explainer = nf.compile(model, x, method="gradcam")
    assert not any("times" in node.name for node in explainer.graph_module.graph.nodes)
    flow = explainer(x)
    assert flow.used == {} and flow.neuron_times == {} and flow.abandoned == {}


def test_the_counts_are_exported() -> None:
    model, x = made("branches")
    explainer = nf.compile(model, x, keep=KEEP, method="gradcam")
    from naflow_fx.artefacts.writing import example_inputs, exported_program

    inputs = example_inputs(explainer._job, x)
    run: Any = exported_program(explainer.graph_module, inputs).module()
    result, flow = run(x, torch.tensor([1, 1])), explainer(x, 1)
    for part in KEEP:
        for site, found in result[part].items():
            assert torch.equal(found, getattr(flow, part)[site]), site


def test_pairs_are_counted_on_both_sides() -> None:
    encoder = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2), nn.ReLU(), nn.Flatten())
    x = images((1, 6, 6))
    explainer = nf.compile(fill(encoder).double(), x, target=nf.Similarity(shots=2), keep=KEEP)
    pair = explainer(x, images((1, 6, 6), 4).reshape(2, 2, 1, 6, 6))
    assert pair.query.used["input"].shape == (2, 1, 6, 6)
    assert pair.support.neuron_times["input"].shape == (4, 1, 6, 6)
    assert not pair.query.used["input"][..., -1].any()  # the last column is never read
