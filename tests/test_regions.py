"""Forks and merges: regions as one draws them by hand, on hazards and on torchvision's networks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hazards import conv, head
from shelf import HAZARDS, densenet, hazard, hazard_images, images, score_of
from torch import Tensor, fx, nn

import naflow_fx as nf
from naflow_fx import keys
from naflow_fx.compiler import PIPELINE
from naflow_fx.job import Job
from naflow_fx.options import resolve
from naflow_fx.passes.find_flow import Flow, find_flow
from naflow_fx.passes.find_regions import Region, find_regions
from naflow_fx.passes.join_features import cascade_ends

Drawn = dict[str, tuple[str, str, bool]]  # exit -> (kind, entry, series-parallel)
INPUTS = "inputs"


def labelled(model: nn.Module, *x: Tensor, score: Any = None) -> fx.GraphModule:
    """The graph up to `join_features`."""
    job, state = Job(model, x, score, resolve()), model
    with torch.no_grad():
        for step in PIPELINE:
            state = step(state, job)
            if step.run.__name__ == "join_features":
                break
    assert isinstance(state, fx.GraphModule)
    return state


def find(model: nn.Module, *x: Tensor, score: Any = None) -> tuple[Flow, dict[str, Region]]:
    gm = labelled(model, *x, score=score)
    flow = find_flow(gm.graph)
    regions = find_regions(gm.graph, {*flow.cascade, *cascade_ends(gm)})
    assert all(merge is region.nodes[-1] for merge, region in regions.items())
    return flow, {merge.name: region for merge, region in regions.items()}


def names(nodes: Iterable[fx.Node]) -> tuple[str, ...]:
    return tuple(node.name for node in nodes)


def entry(region: Region) -> str:
    return region.entry.name if region.entry is not None else INPUTS


def drawn(regions: dict[str, Region]) -> Drawn:
    return {name: (r.kind, entry(r), r.series_parallel) for name, r in regions.items()}


BY_HAND: dict[str, Drawn] = {
    "in_place": {"add": ("residual", "relu", True)},
    "pre_activation": {"add": ("residual", "relu", True)},
    "overwritten_copy": {"add": ("residual", "relu", True)},
    "nested_residual": {
        "add": ("residual", "relu_1", True),
        "add_1": ("residual", "relu", True),
    },
    "nested_concat": {
        "cat": ("concatenation", "relu", True),
        "cat_1": ("concatenation", "relu", True),
    },
    "inception": {"cat": ("concatenation", "relu", True)},
    "dense_block": {
        "cat": ("concatenation", "stem", True),
        "cat_1": ("concatenation", "stem", False),
    },
    "doubled": {"add": ("residual", "relu", True), "cat": ("concatenation", "add", True)},
    "two_heads": {"features": ("features", "relu", True)},
    "two_pools": {"features": ("features", "relu", True)},
}


@pytest.mark.parametrize("name", HAZARDS)
def test_hazards(name: str) -> None:
    """Those that are not drawn have no region: gates are control branches, no forks."""
    _, regions = find(hazard(name), hazard_images(name), score=score_of(name))
    assert drawn(regions) == BY_HAND.get(name, {})


def test_the_nodes_of_a_region() -> None:
    _, regions = find(hazard("nested_residual"), hazard_images("nested_residual"))
    assert names(regions["add"].nodes) == ("conv2", "add")
    assert names(regions["add_1"].nodes) == ("conv1", "relu_1", "conv2", "add", "add_1")
    _, regions = find(hazard("inception"), hazard_images("inception"))
    assert names(regions["cat"].nodes) == (
        "one", "three_0", "three_1", "three_2", "three_3", "five_0", "five_1", "five_2", "pool_0",
        "pool_1", "cat",
    )  # fmt: skip
    _, regions = find(hazard("doubled"), hazard_images("doubled"))
    assert [names(regions[e].nodes) for e in ("add", "cat")] == [("add",), ("cat",)]


FEATURES = {
    "two_heads": ("relu_1", "relu_2"),
    "two_pools": ("relu", "relu_1"),
    "view_flatten": ("relu",),
    "mean_head": ("conv2",),
    "padding_modes": ("pad",),
    "spatial_gate": ("mul",),
}
CONTROL = {"spatial_gate": ["unsqueeze", "unsqueeze_1", "cat", "conv", "sigmoid"]}


@pytest.mark.parametrize("name", HAZARDS)
def test_features_and_control_branches(name: str) -> None:
    flow, _ = find(hazard(name), hazard_images(name), score=score_of(name))
    assert names(flow.inputs) == ("x",)
    if name in FEATURES:
        assert names(flow.features) == FEATURES[name]
    assert len(flow.features) == (2 if name in ("two_heads", "two_pools") else 1)
    control = [site.name for site in flow.sites if site not in flow.cascade]
    assert control == CONTROL.get(name, [])  # pooled gates have no space, so are no sites
    assert flow.sites[-1] in flow.features or name in CONTROL


class Bridge(nn.Module):
    """Wheatstone's bridge: a in two branches of the last merge, b in one."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.head = conv(3, 4), conv(3, 4), conv(4, 4), head(8)

    def forward(self, x: Tensor) -> Any:
        a, b = self.a(x), self.b(x)
        return self.head(torch.cat([self.c(a), a + b], 1))


class Ladder(nn.Module):
    """A U-net of two levels: nested regions whose entries differ and whose exits differ."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down, self.middle = conv(3, 4), conv(4, 4, stride=2), conv(4, 4)
        self.up, self.join, self.out = conv(8, 4), conv(8, 4), head(4)

    def forward(self, x: Tensor) -> Any:
        a = F.relu(self.stem(x))
        b = F.relu(self.down(a))
        c = torch.cat([b, F.relu(self.middle(b))], 1)
        d = F.interpolate(F.relu(self.up(c)), scale_factor=2)
        return self.out(F.relu(self.join(torch.cat([a, d], 1))))


class Chain(nn.Module):
    """Two residual blocks in one branch, a third sum of three branches around all."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.c1, self.c2, self.c3 = conv(3, 4), conv(4, 4), conv(4, 4), conv(4, 4)
        self.head = head(4)

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        y = x + self.c1(x)
        y = y + self.c2(y)
        return self.head(sum([x, y, self.c3(x)]))


def test_hand_drawn_graphs() -> None:
    x = images((3, 8, 8), dtype=torch.float32)
    assert drawn(find(Bridge(), x)[1]) == {
        "add": ("residual", "x", True),
        "cat": ("concatenation", "x", False),
    }
    assert drawn(find(Ladder(), x)[1]) == {
        "cat": ("concatenation", "relu_1", True),
        "cat_1": ("concatenation", "relu", True),
    }
    found = drawn(find(Chain(), x)[1])
    assert found["add"] == ("residual", "stem", True)
    assert found["add_1"] == ("residual", "add", True)
    last = [region for exit, region in found.items() if exit not in ("add", "add_1")]
    assert {(kind, entry) for kind, entry, _ in last} == {("residual", "stem")}


class TwoInputs(nn.Module):
    """Paths from two inputs that merge: no fork."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = conv(3, 4), conv(2, 4), head(4)

    def forward(self, x: Tensor, y: Tensor) -> Any:
        return self.head(F.relu(self.a(x) + self.b(y)))


def test_inputs_that_merge_have_no_fork() -> None:
    x, y = images((3, 8, 8), dtype=torch.float32), images((2, 8, 8), dtype=torch.float32)
    flow, regions = find(TwoInputs(), x, y)
    assert names(flow.inputs) == ("x", "y")
    assert drawn(regions) == {"add": ("residual", INPUTS, True)}


def kinds(name: str, size: int = 64, **options: Any) -> Counter[tuple[str, bool]]:
    model = torchvision.models.get_model(name, **options)
    _, regions = find(model, images((3, size, size), batch=1, dtype=torch.float32))
    return Counter((r.kind, r.series_parallel) for r in regions.values())


def test_resnet18() -> None:
    model = torchvision.models.resnet18()
    flow, regions = find(model, images((3, 64, 64), batch=1, dtype=torch.float32))
    found = drawn(regions)
    assert len(found) == 8 and set(found.values()) == {
        ("residual", entry, True)
        for entry in ["maxpool", *(f"layer{i}_{j}_relu_1" for i in range(1, 5) for j in range(2))]
        if entry != "layer4_1_relu_1"
    }
    assert names(regions["layer2_0_add"].nodes) == (
        "layer2_0_conv1", "layer2_0_bn1", "layer2_0_relu", "layer2_0_conv2", "layer2_0_bn2",
        "layer2_0_downsample_0", "layer2_0_downsample_1", "layer2_0_add",
    )  # fmt: skip
    assert names(flow.features) == ("layer4_1_relu_1",)


def test_densenet() -> None:
    """In a block of two layers: a fork of the block's input to two, then to three."""
    _, regions = find(densenet(), images((3, 64, 64), batch=1))
    assert Counter((r.kind, r.series_parallel) for r in regions.values()) == {
        ("concatenation", True): 2,
        ("concatenation", False): 2,
    }
    assert set(map(entry, regions.values())) == {"features_pool0", "features_transition1_pool"}


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("squeezenet1_1", {("concatenation", True): 8}),
        ("mobilenet_v2", {("residual", True): 10}),
        ("mobilenet_v3_small", {("residual", True): 6}),
        ("efficientnet_b0", {("residual", True): 9}),
        ("resnext50_32x4d", {("residual", True): 16}),
        ("vgg11_bn", {}),
    ],
)
def test_torchvisions_networks(name: str, wanted: dict[tuple[str, bool], int]) -> None:
    assert kinds(name) == wanted


def test_googlenet() -> None:
    options: dict[str, Any] = {"init_weights": False, "aux_logits": False}
    assert kinds("googlenet", **options) == {("concatenation", True): 9}


def test_inspect_tells_the_region_of_a_site() -> None:
    explainer = nf.compile(hazard("nested_residual"), hazard_images("nested_residual"))
    rows = {row.layer: row for row in explainer.inspect().rows}
    outer = "residual relu -> add_1"
    assert {k: rows[k].region for k in rows} == {
        "x": "-", "stem": "-", "relu": outer, "conv1": outer, "relu_1": outer, "conv2": outer,
        "add": outer, "add_1": "-", "relu_2": "-",
    }  # fmt: skip
    assert set(rows) <= {n.meta.get(keys.SITE) for n in explainer.graph_module.graph.nodes}
