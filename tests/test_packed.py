"""Weights in oneDNN's own layout: the same numbers, made once, never stale, never exported."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import naflow_fx as nf
from naflow_fx.artefacts import regions
from naflow_fx.rules import _packed, conv

onednn: Any = torch.backends.mkldnn
BF16 = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
GEOMETRIES: list[tuple[Any, ...]] = [  # kernel, stride, padding, dilation
    ((3, 3), (1, 1), (1, 1), (1, 1)),
    ((3, 5), (1, 1), (0, 2), (1, 1)),
    ((3, 3), (1, 1), (2, 2), (2, 2)),
    ((3, 3), (2, 2), (1, 1), (1, 1)),
    ((3, 2), (2, 3), (1, 0), (2, 1)),
    ((5, 5), (2, 2), (2, 2), (1, 1)),
    ((7, 7), (2, 2), (3, 3), (1, 1)),
    ((4, 4), (4, 4), (0, 0), (1, 1)),
]
needs_onednn = pytest.mark.skipif(not onednn.is_available(), reason="torch without oneDNN")


class Calls(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts calls by name."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.found[name] = self.found.get(name, 0) + 1
        return func(*args, **(kwargs or {}))


def given(geometry: tuple[Any, ...]) -> dict[str, Any]:
    _, stride, padding, dilation = geometry
    return {"stride": stride, "padding": padding, "dilation": dilation, "groups": 1,
            "padding_mode": "constant"}  # fmt: skip


def weight_of(geometry: tuple[Any, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    made = torch.randn(6, 4, *geometry[0], generator=generator, dtype=dtype)
    return made.contiguous(memory_format=torch.channels_last)


@needs_onednn
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_packed_weight_multiplies_as_the_plain_one(
    geometry: tuple[Any, ...], dtype: torch.dtype
) -> None:
    if dtype == torch.bfloat16 and not BF16:
        pytest.skip("a processor without bfloat16")
    weight, how = weight_of(geometry, dtype), given(geometry)
    v = torch.randn(2, 4, 19, 21, dtype=torch.float32)
    plain = conv.linear(v, weight, **how)
    packed = conv.packed(weight, False, tuple(weight.shape), **how)
    assert packed.is_mkldnn
    torch.testing.assert_close(conv.linear(v, packed, **how), plain, rtol=1e-2, atol=1e-4)

    turned = conv.turned(weight, **how)
    assert turned is not None
    again = conv.packed(turned, True, tuple(weight.shape), **how)
    assert again.is_mkldnn or geometry[0] == geometry[1]  # 1 x 1 are products
    w, shape = torch.randn_like(plain), tuple(v.shape)
    found = conv.transpose(w, weight, **how, input_shape=shape, turned=again)
    wanted = conv.transpose(w, weight, **how, input_shape=shape)
    bound = 0.3 if dtype == torch.bfloat16 else 1e-4  # sums of up to 300 products
    torch.testing.assert_close(found, wanted, rtol=1e-2, atol=bound)


@pytest.mark.parametrize(
    ("weight", "padding"),
    [
        (torch.randn(6, 4, 3, 3, dtype=torch.float64), (1, 1)),
        (torch.randn(6, 4, 1, 1), (0, 0)),
        (torch.randn(6, 4, 2, 2), "same"),
    ],
)
def test_what_does_not_fit_stays_as_it_is(weight: Tensor, padding: Any) -> None:
    how = given(((3, 3), (1, 1), padding, (1, 1)))
    assert conv.packed(weight, False, tuple(weight.shape), **how) is weight


@needs_onednn
def test_a_changed_weight_is_packed_again() -> None:
    weight, how = weight_of(GEOMETRIES[0]), given(GEOMETRIES[0])
    v = torch.randn(1, 4, 9, 9)
    first = conv.packed(weight, False, tuple(weight.shape), **how)
    assert conv.packed(weight, False, tuple(weight.shape), **how) is first
    with torch.no_grad():
        weight.mul_(2)
    second = conv.packed(weight, False, tuple(weight.shape), **how)
    torch.testing.assert_close(
        conv.linear(v, second, **how), 2 * conv.linear(v, first, **how), rtol=1e-5, atol=1e-5
    )
    weight.data = weight.detach() / 4  # leaves the version as it is
    third = conv.packed(weight, False, tuple(weight.shape), **how)
    torch.testing.assert_close(
        conv.linear(v, third, **how) * 4, conv.linear(v, second, **how), rtol=1e-5, atol=1e-5
    )


@needs_onednn
def test_packed_weights_die_with_their_tensor() -> None:
    before = len(_packed._kept)
    weight, how = weight_of(GEOMETRIES[0]), given(GEOMETRIES[0])
    conv.packed(weight.movedim(-1, 1).movedim(1, -1), False, tuple(weight.shape), **how)
    assert len(_packed._kept) == before + 1
    del weight
    assert len(_packed._kept) == before


@pytest.fixture(scope="module")
def explainer() -> nf.Explainer:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 7, 2, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    ).eval()  # fmt: skip
    torch.manual_seed(0)
    inverse = nf.Inverse(steps=4, precision="float32")
    return nf.compile(net, torch.randn(1, 3, 33, 32), inverse=inverse)


@needs_onednn
def test_the_solver_packs_each_weight_once(explainer: nf.Explainer) -> None:
    x = torch.randn(2, 3, 33, 32)
    for packings in (4, 0):  # two layers, A and A^T
        with Calls() as calls:
            explainer(x)
        assert calls.found.get("_reorder_convolution_weight", 0) == packings
        assert calls.found["_convolution_pointwise"] == 2 * 2 * 4


@needs_onednn
def test_maps_are_those_of_plain_weights(
    explainer: nf.Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(2, 3, 33, 32)
    found = explainer(x).maps
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with Calls() as calls:
        wanted = explainer(x).maps
    assert "_convolution_pointwise" not in calls.found
    for name, each in wanted.items():
        torch.testing.assert_close(found[name], each, rtol=1e-3, atol=1e-4 * float(each.max()))


@needs_onednn
@pytest.mark.slow
def test_compiled_steps_take_packed_weights(
    explainer: nf.Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def counted(*args: Any) -> Tensor:
        nonlocal calls
        calls += args[1].is_mkldnn
        return _packed.packed_conv(*args)

    monkeypatch.setitem(regions.PACKED, torch.conv2d, counted)
    x = torch.randn(2, 3, 33, 32)
    torch.compiler.reset()
    found = explainer.compiled()(x).maps
    assert calls == 2 * 2 * 4
    for name, wanted in explainer(x).maps.items():
        torch.testing.assert_close(found[name], wanted, rtol=1e-3, atol=1e-4 * float(wanted.max()))


@needs_onednn
def test_where_gradients_are_recorded_weights_are_plain(explainer: nf.Explainer) -> None:
    x = torch.randn(1, 3, 33, 32)
    target = torch.zeros(1, dtype=torch.int64)
    with Calls() as calls, torch.enable_grad():
        explainer.graph_module(x.requires_grad_(), target)
    assert "_convolution_pointwise" not in calls.found
