"""The explainer as a user meets it: what it gives, image by image, its copies and its table."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict
from typing import Any

import pytest
import torch
from flows import SMALL, STEPS, assert_near, assert_same_bytes, resnet
from shelf import HAZARDS, class_one, hazard, hazard_images, images, network, score_of
from torch import nn

import naflow_fx as nf

# What it gives.


def test_the_flow() -> None:
    model, x = network("resnet18", torch.float32), images(SMALL, 3, torch.float32)
    explainer = resnet()
    flow = explainer(x)
    assert isinstance(flow, nf.AttentionFlow) and isinstance(flow.maps, OrderedDict)
    assert list(flow.maps) == explainer.layers == list(flow.residual) == list(flow.norm_ratio)
    with torch.no_grad():
        torch.testing.assert_close(flow.output, model.eval()(x))
    assert flow.target is not None and flow.target.tolist() == flow.output.argmax(1).tolist()
    assert len(flow) == 3 and flow.input_size == (32, 32)
    for name, value in flow.maps.items():
        assert value.shape[0] == 3 and value.dim() == 3 and value.dtype == torch.float32
        assert value.isfinite().all() and (value >= 0).all(), name
        assert flow.residual[name].shape == flow.norm_ratio[name].shape == (3,)
        assert (flow.residual[name] >= 0).all() and (flow.norm_ratio[name] >= 0).all()
    assert sum(bool(value.any()) for value in flow.maps.values()) > 0.9 * len(flow.maps)
    assert flow.maps["conv1"].shape == (3, 16, 16) and flow.maps["x"].shape == (3, 32, 32)
    assert flow.options["inverse"]["steps"] == 3 and flow.options["method"] == "naflow"
    assert not flow.bpfm and not flow.importance


def test_the_order_is_the_forward_pass() -> None:
    order: list[str] = []
    model = network("resnet18", torch.float32).eval()
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d)):
            module.register_forward_hook(lambda *_, at=name: order.append(at))
    with torch.no_grad():
        model(images(SMALL, 1, torch.float32))
    assert [site for site in resnet().layers if site in set(order)] == order


def test_the_feature_node_is_the_activation_itself() -> None:
    model, x = hazard("in_place"), hazard_images("in_place")
    flow = nf.compile(model, x, keep="bpfm", inverse=STEPS)(x)
    assert flow.residual["relu_1"].eq(0).all() and flow.norm_ratio["relu_1"].eq(1).all()
    assert all(flow.norm_ratio[s].ne(1).any() for s in flow.maps if s != "relu_1")
    torch.testing.assert_close(model.head.eval()(flow.bpfm["relu_1"]), flow.output)  # type: ignore[union-attr]


def test_keep_and_the_definition_of_a_map() -> None:
    x = hazard_images("inception")
    explainer = nf.compile(hazard("inception"), x, keep=("bpfm", "importance"), inverse=STEPS)
    flow = explainer(x)
    channels = {"x": 3, "stem": 6, "one": 2, "three.0": 4, "cat": 11}
    for name, value in flow.maps.items():
        z, importance = flow.bpfm[name], flow.importance[name]
        assert z.shape == importance.shape and z.shape[2:] == value.shape[1:]
        assert z.shape[1] == channels.get(name, z.shape[1])
        torch.testing.assert_close(value, (z * importance).sum(1).clamp_min(0))
    other = nf.compile(hazard("inception"), x, keep="bpfm", reduction="channelwise", inverse=STEPS)(
        x
    )
    assert not other.importance
    for name, value in other.maps.items():
        wanted = (other.bpfm[name] * flow.importance[name]).clamp_min(0).sum(1)
        torch.testing.assert_close(value, wanted)


@pytest.mark.parametrize("name", ["gate", "spatial_gate", "nested_gate"])
def test_control_branches_keep_the_forward_activation(name: str) -> None:
    model, x = hazard(name), hazard_images(name)
    explainer = nf.compile(model, x, keep="bpfm", inverse=STEPS)
    rows = [row for row in explainer.inspect().rows if row.kind == "control"]
    assert bool(rows) == (name == "spatial_gate")
    flow = explainer(x)
    for row in rows:
        assert flow.norm_ratio[row.layer].eq(1).all() and flow.residual[row.layer].eq(0).all()


# Batches.


@pytest.mark.parametrize("name", HAZARDS)
def test_a_batch_equals_its_images_in_float64(name: str) -> None:
    model, x = hazard(name), hazard_images(name, batch=4)
    explainer = nf.compile(model, x[:1], target=score_of(name), inverse=STEPS)
    flow = explainer(x)
    for i in range(4):
        assert_near(flow[i], explainer(x[i : i + 1]), 1e-10)


@pytest.mark.parametrize(
    "options",
    [{}, {"rows": "all"}, {"rows": "leading"}, {"damping": 0.0}],
    ids=str,
)
def test_a_batch_equals_its_images_with_options(options: Any) -> None:
    model, x = hazard("inception"), hazard_images("inception", batch=4)
    explainer = nf.compile(model, x, inverse=nf.Inverse(**({"steps": 5} | options)))
    flow = explainer(x)
    for i in range(4):
        assert_near(flow[i], explainer(x[i : i + 1]), 1e-9)


def test_a_batch_equals_its_images_in_float32() -> None:
    """Convolutions of a batch round otherwise; measured 1.5e-5 of a map's largest value."""
    x = images(SMALL, 4, torch.float32)
    flow = resnet()(x)
    for i in range(4):
        assert_near(flow[i], resnet()(x[i : i + 1]), 5e-5)


def test_one_image_never_changes_anothers_result() -> None:
    x = images(SMALL, 3)
    explainer = resnet(torch.float64)
    alone = explainer(x)
    x[1] *= 1e4
    loud = explainer(x)
    for i in (0, 2):
        assert_near(loud[i], alone[i], 1e-9)


def test_the_same_bytes_twice() -> None:
    x = images(SMALL, 2, torch.float32)
    again = nf.compile(network("resnet18", torch.float32), images(SMALL, 2, torch.float32),
                       inverse=STEPS)  # fmt: skip
    flow = resnet()(x)
    assert_same_bytes(resnet()(x), flow)
    assert_same_bytes(again(x), flow)


def test_an_image_that_is_zero_and_one_that_is_dead() -> None:
    """Nothing to invert: finite maps all the same."""
    model = hazard("in_place")
    for x in (torch.zeros(2, 3, 12, 12).double(), torch.full((1, 3, 12, 12), -1e3).double()):
        flow = nf.compile(model, x)(x)
        assert all(value.isfinite().all() for value in flow.maps.values())
        assert all(value.isfinite().all() for value in flow.residual.values())
    dead = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(4, 2)).double()  # fmt: skip
    nn.init.constant_(dead[0].bias, -1e3)  # type: ignore[arg-type]
    flow = nf.compile(dead, images((3, 8, 8)), keep=("bpfm", "importance"))(images((3, 8, 8)))
    for part in (flow.maps, flow.residual, flow.norm_ratio, flow.sigma_max, flow.bpfm):
        assert all(value.isfinite().all() for value in part.values())
    assert all(value.eq(0).all() for value in flow.maps.values())


# Half precision: the solver is float32, the network's own rounding stays.  Measured (mean and
# smallest cosine over images and call sites): bfloat16 0.980 and 0.73 with AMX, 0.979 and 0.58 with
# AVX-512 BF16; float16 0.998 and 0.97.


@pytest.mark.parametrize(
    ("dtype", "mean", "smallest"),
    [(torch.bfloat16, 0.96, 0.5), (torch.float16, 0.995, 0.93)],
)
def test_half_precision(dtype: torch.dtype, mean: float, smallest: float) -> None:
    x = images((3, 64, 64), 2, torch.float32)
    whole = nf.compile(network("resnet18", torch.float32), x, inverse=STEPS)
    wanted = whole(x, target=[1, 2])
    half = nf.compile(network("resnet18", dtype), x.to(dtype), inverse=STEPS)
    flow = half(x.to(dtype), target=[1, 2])
    cosines = []
    for name, value in flow.maps.items():
        assert value.dtype == dtype and value.isfinite().all() and (value >= 0).all(), name
        for a, b in zip(
            value.double().flatten(1), wanted.maps[name].double().flatten(1), strict=True
        ):
            if a.any() or b.any():
                cosines.append(torch.cosine_similarity(a, b, dim=0))
    assert len(cosines) > 120
    assert torch.stack(cosines).mean() > mean and min(cosines) > smallest
    moved = whole.to(dtype)(x.to(dtype), target=[1, 2])
    assert all(value.isfinite().all() for value in moved.maps.values())


def test_autocast() -> None:
    x = images(SMALL, 2, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        flow = resnet()(x)
    assert all(value.isfinite().all() for value in flow.maps.values())


# Copies.


def test_deepcopy() -> None:
    model, x = hazard("gate"), hazard_images("gate")
    explainer = nf.compile(model, x, inverse=STEPS)
    wanted = explainer(x)
    twin = copy.deepcopy(explainer)
    assert_same_bytes(twin(x), wanted)
    assert_same_bytes(twin(x, class_one), explainer(x, class_one))
    assert twin.layers == explainer.layers and str(twin.inspect()) == str(explainer.inspect())
    for buffer in twin.buffers():
        buffer.zero_()
    assert_same_bytes(explainer(x), wanted)


@pytest.mark.parametrize("target", [None, class_one])
def test_pickle(target: Any) -> None:
    model, x = hazard("gate"), hazard_images("gate")
    explainer = nf.compile(model, x, target=target, layers="*conv*", inverse=STEPS)
    twin = pickle.loads(pickle.dumps(explainer))
    assert_same_bytes(twin(x), explainer(x))
    assert_same_bytes(twin(x, 3), explainer(x, 3))
    assert twin.options == explainer.options and twin.layers == explainer.layers
    moved = pickle.loads(pickle.dumps(explainer.to(torch.float32)))
    assert moved(x.float()).score.dtype == torch.float32


def test_it_holds_no_hooks_and_no_parameters() -> None:
    explainer = resnet()
    assert list(explainer.parameters()) == []
    for module in explainer.modules():
        hooks = [kind for kind in vars(module) if kind.endswith("_hooks") and getattr(module, kind)]
        assert not hooks or type(module) is nf.Explainer
    assert explainer.train()(images(SMALL, 1, torch.float32)).maps


# The table.


def test_inspect() -> None:
    explainer = resnet()
    headline, blocks, sites = str(explainer.inspect()).split("\n\n")
    assert f"{len(explainer.layers)} call sites" in headline
    assert [line.split()[0] for line in blocks.splitlines()[5:8]] == ["relu", "maxpool", "layer1.0"]
    lines = sites.splitlines()
    assert len(lines) == len(explainer.layers) + 2 == len(explainer.inspect()) + 2
    assert lines[0].split()[:6] == ["layer", "operator", "shape", "captured", "inverse", "equation"]
    assert [line.split()[0] for line in lines[2:]] == explainer.layers
    rows = {row.layer: row for row in explainer.inspect().rows}
    assert (rows["conv1"].operator, rows["conv1"].shape) == ("conv", "Nx64x16x16")
    assert rows["relu"].captures == "relu_mask" and rows["maxpool"].captures == "maxpool_index"
    assert rows["x"].kind == "least squares" and "Eqs. 6-10" in rows["x"].equation
    assert rows["conv1"].equation == "Eq. 11" and rows["bn1"].equation == "Eq. 12"
    assert rows["relu"].equation == "Eq. 14" and "Eq. 7" in rows["maxpool"].equation
    assert rows["layer4.1.relu_1"].kind == "start"
    assert rows["layer1.0.conv2"].region == "residual maxpool -> layer1.0.add"
    nodes = {node.name for node in explainer.graph_module.graph.nodes}
    for row in rows.values():
        assert row.importance in nodes and row.inverse in nodes, row


def test_inspect_of_a_gradient_method_and_of_a_dense_block() -> None:
    gradient = nf.compile(hazard("dense_block"), hazard_images("dense_block"), method="gradcam")
    assert {row.inverse for row in gradient.inspect().rows} == {"-"}
    whole = nf.compile(hazard("dense_block"), hazard_images("dense_block"))
    kinds = {row.layer: row.kind for row in whole.inspect().rows}
    assert kinds["bn2"] == kinds["conv1"] == "propagated" and kinds["stem"] == "least squares"
