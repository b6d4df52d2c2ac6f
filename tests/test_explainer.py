"""The explainer as a user meets it: what it gives, what it leaves alone, what it refuses."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from shelf import (
    HAZARDS,
    class_one,
    hazard,
    hazard_images,
    images,
    network,
    relative_error,
    score_of,
)
from torch import nn

import naflow_fx as nf
from naflow_fx.errors import GraphError, InputError, OptionError, TraceError
from naflow_fx.options import Options, on_device

STEPS = nf.Inverse(steps=3, precision="float32")
SMALL = (3, 32, 32)


@cache
def resnet(dtype: torch.dtype = torch.float32) -> nf.Explainer:
    return nf.compile(network("resnet18", dtype), images(SMALL, 2, dtype), inverse=STEPS)


def assert_same_bytes(a: nf.AttentionFlow, b: nf.AttentionFlow) -> None:
    assert list(a.maps) == list(b.maps)
    for part in ("maps", "residual", "norm_ratio", "sigma_max", "bpfm", "importance"):
        for name, value in getattr(a, part).items():
            assert torch.equal(value, getattr(b, part)[name]), (part, name)
    assert torch.equal(a.score, b.score) and torch.equal(a.output, b.output)


def assert_near(a: nf.AttentionFlow, b: nf.AttentionFlow, tolerance: float) -> None:
    """Every map of every image within a share of its own largest value."""
    assert list(a.maps) == list(b.maps)
    for name in a.maps:
        for found, wanted in zip(a.maps[name], b.maps[name], strict=True):
            if wanted.any() or found.any():
                assert relative_error(found.double(), wanted.double()) < tolerance, name


# What is left alone.


def everything(model: nn.Module) -> dict[str, Any]:
    """All that a user could see of a model."""
    state = model.state_dict(keep_vars=True)
    return {
        "mode": {name: m.training for name, m in model.named_modules()},
        "identity": {name: (id(t), t._version, t.requires_grad) for name, t in state.items()},
        "bytes": {name: t.detach().numpy().tobytes() for name, t in state.items()},
        "grad": {
            n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()
        },
        "hooks": {
            name: [list(getattr(m, kind)) for kind in vars(m) if kind.endswith("_hooks")]
            for name, m in model.named_modules()
        },
        "attributes": {name: sorted(vars(m)) for name, m in model.named_modules()},
        "in place": {n: getattr(m, "inplace", None) for n, m in model.named_modules()},
    }


def assert_unchanged(before: dict[str, Any], model: nn.Module) -> None:
    after = everything(model)
    grads, now = before.pop("grad"), after.pop("grad")
    assert before == after
    for name, grad in grads.items():
        assert (grad is None) == (now[name] is None)
        assert grad is None or torch.equal(grad, now[name])


@pytest.mark.parametrize("name", ["in_place", "dropout", "functional", "pre_activation"])
def test_the_model_is_never_changed(name: str) -> None:
    model, x = hazard(name).train(), hazard_images(name)
    for child in list(model.children())[:1]:
        child.eval()  # a mixed mode, as in fine-tuning
    first = next(model.parameters())
    first.requires_grad_(False)
    for parameter in list(model.parameters())[1:]:
        parameter.grad = torch.ones_like(parameter)
    seen: list[Any] = []
    model.register_forward_hook(lambda *_: seen.append(1))
    before, image = everything(model), x.clone()
    explainer = nf.compile(model, x, inverse=STEPS)
    flow = explainer(x)
    explainer(x, class_one)
    assert_unchanged(before, model)
    assert torch.equal(x, image) and x.grad is None
    assert not flow.score.requires_grad
    assert all(not value.requires_grad for value in flow.maps.values())


def test_moving_the_explainer_leaves_the_model() -> None:
    model, x = hazard("in_place", torch.float32), hazard_images("in_place", dtype=torch.float32)
    before = everything(model)
    explainer = nf.compile(model, x, inverse=STEPS)
    flow = explainer(x)
    assert explainer.to(torch.float64) is explainer
    double = explainer(x.double())
    assert {m.dtype for m in double.maps.values()} == {torch.float64}
    assert double.output.dtype == torch.float64
    assert_near(double, flow, 1e-4)
    with pytest.raises(InputError, match=r"got torch.float32; this explainer computes in torch.fl"):
        explainer(x)
    assert_near(explainer(x.double(), class_one), nf.compile(model, x, inverse=STEPS)(x, 1), 1e-4)
    assert_unchanged(before, model)
    shared = {b.data_ptr() for b in explainer.buffers()}
    assert not shared & {p.data_ptr() for p in model.parameters()}


def test_a_frozen_model() -> None:
    model, x = hazard("in_place"), hazard_images("in_place")
    wanted = nf.compile(model, x, inverse=STEPS)(x)
    frozen = copy.deepcopy(model).requires_grad_(False)
    assert_same_bytes(nf.compile(frozen, x, inverse=STEPS)(x), wanted)


@pytest.mark.parametrize("name", ["dropout", "in_place", "scaled_chain"])
def test_a_model_in_train_mode_is_explained_as_in_eval(name: str) -> None:
    model, x = hazard(name).train(), hazard_images(name)
    found = nf.compile(model, x, inverse=STEPS)(x)
    wanted = nf.compile(hazard(name).eval(), x, inverse=STEPS)(x)
    assert_same_bytes(found, wanted)
    torch.testing.assert_close(found.output, hazard(name).eval()(x).detach())


MODES: dict[str, Callable[[], Any]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "enable_grad": torch.enable_grad,
}


@pytest.mark.parametrize("mode", MODES)
def test_grad_modes(mode: str) -> None:
    model, x = hazard("gate"), hazard_images("gate")
    outside = nf.compile(model, x, inverse=STEPS)
    wanted = outside(x)
    with MODES[mode]():
        inside = nf.compile(model, x.clone(), inverse=STEPS)
        assert_same_bytes(inside(x.clone()), wanted)
        assert_same_bytes(outside(x.clone()), wanted)
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        outside(x, class_one)
        assert before == (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
    assert_same_bytes(inside(x), wanted)
    assert_same_bytes(outside(x.clone().requires_grad_()), wanted)


def test_a_model_made_in_inference_mode() -> None:
    with torch.inference_mode():
        model, x = hazard("gate"), hazard_images("gate")
        found = nf.compile(model, x, inverse=STEPS)
        flow = found(x)
    wanted = nf.compile(hazard("gate"), hazard_images("gate"), inverse=STEPS)(hazard_images("gate"))
    assert_same_bytes(flow, wanted)
    assert_same_bytes(found(hazard_images("gate")), wanted)


def test_global_state_is_untouched() -> None:
    torch.manual_seed(5)
    model, x = hazard("inception"), hazard_images("inception")
    before = torch.get_rng_state()
    explainer = nf.compile(model, x, inverse=STEPS)
    explainer(x)
    explainer(x, class_one)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_default_dtype() == torch.float32 and torch.is_grad_enabled()
    torch.set_default_dtype(torch.float64)
    try:
        with_default = nf.compile(hazard("gate", torch.float32), images((3, 12, 12)).float())
        flow = with_default(images((3, 12, 12)).float())
    finally:
        torch.set_default_dtype(torch.float32)
    assert {m.dtype for m in flow.maps.values()} == {torch.float32}


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


# What it refuses.


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (
            torch.zeros(1, 3, 12, 13).double(),
            r"got \[1, 3, 12, 13\]; .* compiled for \[N, 3, 12, 12\]",
        ),
        (torch.zeros(1, 4, 12, 12).double(), r"got \[1, 4, 12, 12\]"),
        (torch.zeros(3, 12, 12).double(), r"got one image \[3, 12, 12\].* use images\[None\]"),
        (torch.zeros(1, 3, 12, 12), "got torch.float32; this explainer computes in torch.float64"),
        (torch.zeros(1, 3, 12, 12, dtype=torch.uint8), "got torch.uint8"),
        ("photo.png", "got str; wanted a tensor"),
        (None, "got NoneType; wanted a tensor"),
        ([torch.zeros(1, 3, 12, 12).double()] * 2, "got 2; the model takes 1"),
    ],
    ids=["size", "channels", "no batch", "dtype", "bytes", "path", "none", "two"],
)  # fmt: skip
def test_images_that_do_not_fit(x: Any, words: str) -> None:
    explainer = nf.compile(hazard("gate"), hazard_images("gate"), method="gradcam")
    with pytest.raises(InputError, match=words):
        explainer(x)


@pytest.mark.parametrize(
    "example",
    [
        "photo.png", None, [], torch.zeros(3), torch.zeros(1, 3, 0, 4),
        torch.zeros(1, 3, 4, 4, dtype=torch.int64), torch.zeros(1, 1, 3, 4, 4, 4),
    ],
    ids=["path", "none", "nothing", "vector", "empty", "integers", "6-d"],
)  # fmt: skip
def test_examples_that_do_not_fit(example: Any) -> None:
    with pytest.raises(InputError, match="example_inputs: got"):
        nf.compile(hazard("gate"), example)


@pytest.mark.parametrize("model", ["resnet18", None, torch.zeros(3), lambda x: x])
def test_what_is_no_model(model: Any) -> None:
    with pytest.raises(TraceError, match="wanted an nn.Module"):
        nf.compile(model, images(SMALL))


OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"method": "grad-cam"}, "method='grad-cam'.*wanted one of 'naflow', 'gradcam'"),
    ({"reduction": "mean"}, "reduction='mean'.*'sum', 'channelwise'"),
    ({"preset": "best"}, r"compile\(preset\): was removed; the method \"focused\" is as good"),
    ({"residual": "capture"}, r"compile\(residual\): was removed; a region is always solved"),
    ({"reduction": "attended"}, r"reduction='attended'\): was removed; the method \"focused\""),
    ({"keep": "maps"}, "keep='maps'.*'bpfm', 'importance'"),
    ({"keep": ("bpfm", 3)}, "keep=3"),
    ({"keep": 3}, "keep=3"),
    ({"inverse": 0.1}, r"inverse=0.1\): wanted nf.Inverse\(...\)"),
    ({"inverse": {"steps": 3}}, "wanted nf.Inverse"),
    ({"method": ["gradcam"]}, "method=.*wanted one of"),
]
INVERSES: list[tuple[dict[str, Any], str]] = [
    ({"damping": -0.1}, "damping=-0.1.*wanted a number >= 0"),
    ({"damping": float("nan")}, "damping=nan"),
    ({"damping": float("inf")}, "damping=inf"),
    ({"damping": "small"}, "damping='small'"),
    ({"damping": True}, "damping=True"),
    ({"steps": 0}, "steps=0.*wanted an integer >= 1"),
    ({"steps": 2.5}, "steps=2.5"),
    ({"steps": True}, "steps=True"),
    ({"rows": "first"}, "rows='first'.*'used', 'all', 'leading'"),
    ({"damping": 0}, r"Inverse\(damping=0\): give steps, too"),
    ({"prior": "activation"}, r"Inverse\(prior\): was removed; damping always pulls towards 0"),
    ({"weight": "importance"}, r"Inverse\(weight\): was removed; the method \"focused\" puts"),
    ({"clip": 10.0}, r"Inverse\(clip\): was removed"),
]


@pytest.mark.parametrize(("options", "words"), OPTIONS, ids=str)
def test_options_that_do_not_exist(options: Any, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        nf.compile(hazard("gate"), hazard_images("gate"), **options)


@pytest.mark.parametrize(("options", "words"), INVERSES, ids=str)
def test_inverses_that_do_not_exist(options: Any, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        nf.Inverse(**options)


# Layers.


def test_layers_by_name_and_glob() -> None:
    model, x = hazard("inception"), hazard_images("inception")

    def layers(wanted: Any) -> list[str]:
        return nf.compile(model, x, layers=wanted, method="hirescam").layers

    assert layers("stem") == ["stem"]
    assert layers(["cat", "stem"]) == ["stem", "cat"]  # forward order
    assert layers("three.*") == ["three.0", "three.1", "three.2", "three.3"]
    assert layers(("*.0", "x")) == ["x", "three.0", "five.0", "pool.0"]
    assert layers("relu_?") == ["relu_1"]
    assert layers(["three.[13]", "three.1"]) == ["three.1", "three.3"]
    assert layers("*") == layers(None)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("thre.0", r"no call site is named thre.0 \(of 15\).*Did you mean: .*three.0"),
        (["stem", "conv9", "zzz"], "no call site is named conv9, zzz"),
        ("fc*", "no call site is named fc"),
        ("Stem", "no call site is named Stem.*Did you mean: stem"),
        ([], r"layers=\(\)\): wanted names and globs"),
        ([3], r"layers=\(3,\)\): wanted names and globs"),
        (3, r"layers=\(3,\)\): wanted names and globs"),
    ],
    ids=str,
)
def test_layers_that_do_not_exist(wanted: Any, words: str) -> None:
    with pytest.raises((GraphError, OptionError), match=f"(?s){words}"):
        nf.compile(hazard("inception"), hazard_images("inception"), layers=wanted)


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


# Options.


COMBINATIONS: list[dict[str, Any]] = [
    {},
    {"reduction": "channelwise"},
    {"inverse": nf.Inverse(steps=1)},
    {"inverse": nf.Inverse(steps=2, rows="all")},
    {"inverse": nf.Inverse(steps=2, rows="leading"), "reduction": "channelwise"},
    {"inverse": nf.Inverse(damping=0.0, steps=2)},
    {"inverse": nf.Inverse(damping=1e6, steps=2)},
    {"inverse": nf.Inverse(steps=40)},
]  # fmt: skip


@pytest.mark.parametrize("options", COMBINATIONS, ids=str)
@pytest.mark.parametrize("name", ["resnet18", "inception", "dense_block", "spatial_gate"])
def test_options_give_finite_maps(name: str, options: Any) -> None:
    if name == "resnet18":
        model, x = network("resnet18", torch.float32), images(SMALL, 2, torch.float32)
    else:
        model, x = hazard(name, torch.float32), hazard_images(name, dtype=torch.float32)
    options = {"inverse": STEPS, "keep": "bpfm"} | options
    flow = nf.compile(model, x, **options)(x)
    for site, value in flow.maps.items():
        assert value.isfinite().all() and (value >= 0).all(), site
        assert flow.bpfm[site].isfinite().all() and flow.residual[site].isfinite().all(), site
    assert sum(bool(value.any()) for value in flow.maps.values()) > 0.5 * len(flow.maps)


def test_options_make_a_difference() -> None:
    model, x = hazard("inception"), hazard_images("inception")
    wanted = nf.compile(model, x, inverse=STEPS, layers="stem")(x).maps["stem"]
    others: list[dict[str, Any]] = [
        {"reduction": "channelwise"}, {"inverse": nf.Inverse(steps=3, rows="all")},
        {"inverse": nf.Inverse(steps=3, rows="leading")},
        {"inverse": nf.Inverse(steps=3, damping=0.01)}, {"method": "layercam"},
    ]  # fmt: skip
    for options in others:
        found = nf.compile(model, x, **{"inverse": STEPS, "layers": "stem", **options})(x)
        assert relative_error(found.maps["stem"], wanted) > 1e-3, options
    assert nf.compile(model, x).options == on_device(Options(), x.device)


def test_converged_without_damping_the_inverse_reproduces_what_the_network_computed() -> None:
    """With nothing abandoned (all rows, no ReLU), the activation itself solves every step."""
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 1)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4)]
    model = nn.Sequential(*body, *head).double()
    x = images((3, 8, 8))
    inverse = nf.Inverse(damping=0.0, steps=200)
    flow = nf.compile(model, x, inverse=inverse, keep="bpfm")(x)
    torch.testing.assert_close(flow.bpfm["0"], model[0](x).detach(), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(flow.bpfm["input"], x, rtol=1e-4, atol=1e-6)
    assert all(r.max() < 1e-6 for r in flow.residual.values())
