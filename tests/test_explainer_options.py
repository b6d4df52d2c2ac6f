"""What `compile` and the explainer are asked for: options, layers, images that do not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from flows import SMALL, STEPS
from shelf import (
    hazard,
    hazard_images,
    images,
    network,
    relative_error,
)
from torch import nn

import naflow_fx as nf
from naflow_fx.errors import GraphError, InputError, OptionError, TraceError
from naflow_fx.options import Options, on_device

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
