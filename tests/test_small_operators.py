"""Constants of an activation's shape, choices, masks, stacks, samplings: against hooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from against_hooks import largest_error
from shelf import class_one, images
from test_same_model import net
from torch import Tensor, nn

import naflow_fx as nf

X = images((3, 12, 12))


def filled(make: Callable[[Tensor], Tensor]) -> Any:
    return lambda s, x: (lambda h: s.next(h * make(h) + h))(s.conv(x))


def stacked(read: Callable[[Tensor], Tensor]) -> Any:
    return lambda s, x: (lambda h: s.next(read(torch.stack([h, 0.5 - h, h * h]))))(s.conv(x))


def chosen(choose: Callable[[Tensor], Tensor]) -> Any:
    return lambda s, x: s.next(choose(s.conv(x)))


MASK = torch.arange(100).reshape(10, 10) % 3 == 0
INDEX = torch.tensor([0, 2, 5, 1, 1, 3, 7, 6])
THETA = torch.tensor([[[0.9, 0.1, 0.0], [0.0, 1.1, 0.1]]], dtype=torch.float64)
LAYERS = {"drop2d": nn.Dropout2d(inplace=True), "drop3d": nn.Dropout3d(inplace=True),
          "rrelu": nn.RReLU(), "unfold": nn.Unfold(3, padding=1)}  # fmt: skip


def sampled(h: Tensor) -> Tensor:
    theta = THETA.expand(h.shape[0], -1, -1)
    return F.grid_sample(h, F.affine_grid(theta, [h.shape[0], 8, 10, 10], False), "bilinear",
                         "zeros", False)  # fmt: skip


def patches(h: Tensor, columns: Tensor) -> Tensor:
    return h + columns.view(h.shape[0], 8, 9, 100).mean(2).view(h.shape)


USES: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "drop2d": lambda m, h: m(h), "drop3d": lambda m, h: m(h[:, :, None])[:, :, 0],
    "rrelu": lambda m, h: m(h), "unfold": lambda m, h: patches(h, m(h)),
}  # fmt: skip
BODIES: dict[str, Any] = {
    "zeros_like": filled(torch.zeros_like), "ones_like": filled(torch.ones_like),
    "full_like": filled(lambda h: torch.full_like(h, 2.0)),
    "new_zeros": filled(lambda h: h.new_zeros(h.shape)),
    "new_ones": filled(lambda h: h.new_ones(8, 1, 1)),
    "new_full": filled(lambda h: h.new_full((1, 8, 1, 1), 3.0)),
    "new_tensor": filled(lambda h: h.new_tensor(3.0)),
    "joined zeros": chosen(
        lambda h: torch.cat([h, h.new_zeros(h.shape[0], 2, 10, 10)], 1)[:, 1:9]),
    "stack sum": stacked(lambda t: t.sum(0)), "stack mean": stacked(lambda t: t.mean(dim=0)),
    "torch.sum": stacked(lambda t: torch.sum(t, 0)), "stack prod": stacked(lambda t: t.prod(0)),
    "stack max": stacked(lambda t: t.max(0)[0]), "stack amin": stacked(lambda t: t.amin(0)),
    "values": stacked(lambda t: t.max(dim=0).values), "one": stacked(lambda t: t[1]),
    "index_select": chosen(lambda h: h.index_select(1, INDEX)),
    "where": chosen(lambda y: torch.where(y > 0, y, 0.1 * y)),
    "where, a number": chosen(lambda y: torch.where(y < 0.1, 0.0, y)),
    "where, zeros": chosen(lambda y: torch.where(y >= 0, y, torch.zeros_like(y))),
    "where, a mask": chosen(lambda y: torch.where(MASK, y, 0.1 * y)),
    "logic": chosen(lambda y: torch.where((y > -1) & ~(y > 1) | (y == 0), y, 2 * y)),
    "masked_fill": chosen(lambda y: y.masked_fill(MASK, 0.5)),
    "masked_fill of itself": chosen(lambda y: y.masked_fill(y <= 0, 0.0)),
    "times a mask": chosen(lambda y: y * (y > 0)),
    "times a float mask": chosen(lambda y: y * (y > 0).to(torch.float64)),
    "times a constant mask": chosen(lambda y: y * MASK),
    "bool index": lambda s, x: s.conv(x)[:, :, MASK].unsqueeze(3),
    "keepdims": chosen(lambda y: y + y.max(1, keepdims=True)[0]),  # type: ignore[call-overload]
    "keepdims of the last": chosen(lambda y: y + y.max(-1, keepdims=True)[0]),  # type: ignore[call-overload]
    "zeros of another dtype": chosen(lambda y: y + torch.zeros(y.shape, dtype=torch.float32)),
    "axis": chosen(lambda y: torch.softmax(y, axis=1)),  # type: ignore[call-arg]
    "reshape_as": chosen(lambda y: y.flatten(1).reshape_as(y)),
    "dropout": lambda s, x: s.next(F.dropout2d(s.conv(x), 0.5, s.training, True)),
    "rrelu": lambda s, x: s.next(F.rrelu(s.conv(x), training=s.training)),
    "grid_sample": chosen(sampled),
    "unfold": chosen(lambda h: patches(h, F.unfold(h, 3, padding=1))),
    "hook": chosen(lambda h: (h.register_hook(print), h.retain_grad(), h)[2]),  # type: ignore[func-returns-value,no-untyped-call]
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_importance_is_autograds(name: str) -> None:
    model = net(BODIES[name])
    error, sites = largest_error(model, X, class_one)
    assert error < 1e-9 and "conv" in sites
    assert all(m.isfinite().all() for m in nf.compile(model, X)(X).maps.values())


@pytest.mark.parametrize("layer", LAYERS)
def test_modules(layer: str) -> None:
    made = net(lambda s, x: s.next(USES[layer](s.layer, s.conv(x))))
    made.layer = LAYERS[layer]
    made.eval()
    error, _ = largest_error(made, X, class_one)
    assert error < 1e-9
