"""Call sites behind reshapes: space that comes back is followed, what is lost is told of."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from against_hooks import largest_error
from shelf import class_one, fill, images
from torch import Tensor, nn

import naflow_fx as nf
from naflow_fx.errors import NaflowWarning

X, SIGNAL = images((3, 12, 16)), images((22, 64))


class Net(nn.Module):
    """Layers by name, and a forward that uses them."""

    def __init__(self, body: Callable[[Any, Tensor], Any], **layers: nn.Module) -> None:
        super().__init__()
        self.body = body
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.body(self, x)


def net(body: Callable[[Any, Tensor], Any], **layers: nn.Module) -> nn.Module:
    common = {"conv": nn.Conv2d(3, 8, 3, padding=1), "next": nn.Conv2d(8, 8, 3, padding=1),
              "mix": nn.Linear(8, 8), "norm": nn.LayerNorm(8), "head": nn.Linear(8, 5)}  # fmt: skip
    return fill(Net(body, **(layers or common))).double().eval()


def pooled(s: Any, h: Tensor) -> Any:
    return s.head(s.next(h).relu().mean((2, 3)))


def normalised(s: Any, x: Tensor) -> Any:
    """kornia's Normalize."""
    flat = (x.flatten(2) - torch.ones(3, 1, dtype=x.dtype)) / 2
    return pooled(s, s.conv(flat.view(x.shape)))


def tokens(s: Any, x: Tensor) -> Any:
    y = s.conv(x)
    t = y.flatten(2).transpose(1, 2)
    t = t + s.mix(s.norm(t))
    return pooled(s, t.transpose(1, 2).reshape(y.shape))


def channels_last(s: Any, x: Tensor) -> Any:
    y = s.conv(x)
    n, c, h, w = (y.shape[i] for i in range(4))
    t = s.mix(y.permute(0, 2, 3, 1).reshape(n, h * w, c))
    return pooled(s, t.view(n, h, w, c).permute(0, 3, 1, 2))


def with_class_token(s: Any, x: Tensor) -> Any:
    y = s.conv(x)
    t = y.flatten(2).transpose(1, 2)
    t = s.mix(torch.cat([torch.ones(1, 1, 8, dtype=x.dtype).expand(t.shape[0], -1, -1), t], 1))
    return pooled(s, t[:, 1:].transpose(1, 2).unflatten(2, (12, 16)))


TWO = {"conv": nn.Conv2d(1, 8, (1, 9)), "next": nn.Conv2d(8, 16, (22, 1), groups=8),
       "head": nn.Linear(16 * 14, 4)}  # fmt: skip
TURNED = {"conv": nn.Conv2d(1, 8, (9, 1)), "next": nn.Conv2d(8, 16, (1, 22)),
          "head": nn.Linear(16, 4)}  # fmt: skip
SWAPPED = {"conv": nn.Conv2d(1, 8, (1, 9)), "next": nn.Conv2d(22, 16, 1), "head": nn.Linear(16, 4)}


def eeg(s: Any, x: Tensor) -> Any:
    h = F.elu(s.next(s.conv(x.unsqueeze(1))))
    return s.head(F.avg_pool2d(h, (1, 4)).flatten(1))


def eeg_turned(s: Any, x: Tensor) -> Any:
    return s.head(F.elu(s.next(s.conv(x[:, None].permute(0, 1, 3, 2)))).mean((2, 3)))


def eeg_swapped(s: Any, x: Tensor) -> Any:
    return s.head(s.next(s.conv(x.unsqueeze(1)).transpose(1, 2)).mean((2, 3)))


ROWS = {"conv": nn.Conv2d(3, 8, 3, padding=1), "rows": nn.Conv2d(12, 12, 3, padding=1, groups=12),
        "next": nn.Conv2d(16, 8, 3, padding=1), "head": nn.Linear(8, 5)}  # fmt: skip
TURNED_TWICE = {"conv": nn.Conv2d(3, 8, 3, padding=1), "rows": nn.Conv2d(12, 12, 1),
                "columns": nn.Conv2d(16, 16, 1), "next": nn.Conv2d(24, 8, 1),
                "head": nn.Linear(8, 5)}  # fmt: skip


def by_rows(s: Any, x: Tensor) -> Any:
    """DiCENet's branch: a convolution along channels and width, beside the plain path."""
    h = s.conv(x)
    return pooled(s, torch.cat([h, s.rows(h.transpose(1, 2).contiguous()).transpose(1, 2)], 1))


def lifted(s: Any, x: Tensor) -> Any:
    """Time as a row of an image, [N, C, 1, time]."""
    return s.head(s.next(s.conv(x[:, :, None])).mean((2, 3)))


LIFTED = {"conv": nn.Conv2d(22, 8, (1, 9)), "next": nn.Conv2d(8, 16, 1), "head": nn.Linear(16, 4)}
FOLLOWED = {
    "normalised": (net(normalised), X), "tokens": (net(tokens), X),
    "channels last": (net(channels_last), X), "class token": (net(with_class_token), X),
    "electrodes": (net(eeg, **TWO), SIGNAL), "turned": (net(eeg_turned, **TURNED), SIGNAL),
    "swapped": (net(eeg_swapped, **SWAPPED), SIGNAL), "rows": (net(by_rows, **ROWS), X),
    "lifted": (net(lifted, **LIFTED), SIGNAL),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLLOWED)
def test_space_that_comes_back_is_followed(name: str) -> None:
    model, x = FOLLOWED[name]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "1 linear layers have no map", NaflowWarning)
        error, sites = largest_error(model, x, class_one)
        flow = nf.compile(model, x)(x)
    assert error < 1e-9 and {"conv", "next"} <= set(sites)
    assert all(m.isfinite().all() and len(m) == len(x) for m in flow.maps.values())


def vit(s: Any, x: Tensor) -> Any:
    t = s.conv(x).flatten(2).transpose(1, 2)
    t = torch.cat([torch.ones(1, 1, 8, dtype=x.dtype).expand(t.shape[0], -1, -1), t], 1)
    for _ in range(2):
        t = t + s.mix(s.norm(t))
    return s.head(t[:, 0])


def frames(s: Any, x: Tensor) -> Any:
    y = s.next(s.conv(x.flatten(0, 1))).mean((2, 3))
    return s.head(y.view(-1, 4, 8).mean(1))


def from_a_vector(s: Any, x: Tensor) -> Any:
    v = s.mix(s.conv(x).mean((2, 3)))
    return pooled(s, v.view(-1, 2, 2, 2).repeat(1, 4, 1, 1))


def rows_and_columns(s: Any, x: Tensor) -> Any:
    h = s.conv(x)
    rows, columns = s.rows(h.transpose(1, 2)), s.columns(h.transpose(1, 3))
    return pooled(s, torch.cat([h, rows.transpose(1, 2), columns.transpose(1, 3)], 1))


STRIPS = {"conv": nn.Conv2d(3, 8, 3, padding=1), "strip": nn.Conv2d(8, 8, 1),
          "next": nn.Conv2d(8, 8, 3, padding=1), "head": nn.Linear(8, 5)}  # fmt: skip


def strips(s: Any, x: Tensor) -> Any:
    """Coordinate attention: a gate per row, made from rows' means."""
    h = s.conv(x)
    return pooled(s, h * s.strip(h.mean(3, keepdim=True)).sigmoid())


MIXED = {"conv": nn.Conv2d(3, 8, 3, padding=1), "bn": nn.BatchNorm2d(8),
         "next": nn.Conv2d(8, 8, 3, padding=1), "head": nn.Linear(8, 5)}  # fmt: skip


def mixed_by_attention(s: Any, x: Tensor) -> Any:
    """A lambda layer: positions are mixed, then seen as an image again."""
    h = s.conv(x)
    t = h.flatten(2)
    return pooled(s, s.bn((t @ (t.transpose(1, 2) @ t).softmax(2)).reshape(h.shape)).relu())


OWN_LAYERS: dict[Any, dict[str, nn.Module]] = {
    rows_and_columns: TURNED_TWICE, strips: STRIPS, mixed_by_attention: MIXED,
}  # fmt: skip


def test_rows_with_kernels_of_their_own_keep_their_place() -> None:
    model, x = FOLLOWED["rows"]
    maps = nf.compile(model, x, method="hirescam")(x).maps
    assert maps["rows"].shape == maps["conv"].shape == maps["cat"].shape == (len(x), 12, 16)


@pytest.mark.parametrize(
    ("body", "x", "words"),
    [(vit, X, r"2 linear layers have no map, from mix on: at flatten \(test_followed"),
     (frames, images((4, 3, 12, 16)), "2 convolutions have no map, from conv on: at flatten"),
     (from_a_vector, X, "1 convolutions have no map, from next on: at"),
     (rows_and_columns, X, "1 convolutions have no map, from next on: at cat"),
     (strips, X, "1 convolutions have no map, from strip on: at mean"),
     (mixed_by_attention, X, "1 batch norms have no map, from bn on: at flatten")],
    ids=["vit", "frames", "from a vector", "turned", "strips", "mixed"],
)  # fmt: skip
def test_what_is_lost_is_told_of(body: Any, x: Tensor, words: str) -> None:
    layers = OWN_LAYERS.get(body, {})
    with pytest.warns(NaflowWarning, match=words):
        flow = nf.compile(net(body, **layers), x)(x)
    assert all(len(m) == len(x) for m in flow.maps.values())


def test_nothing_is_told_where_nothing_is_lost() -> None:
    def gated(s: Any, x: Tensor) -> Any:
        h = s.conv(x)
        return pooled(s, h * s.mix(h.mean((2, 3))).sigmoid()[:, :, None, None])

    nf.compile(net(gated), X)  # a warning is an error in tests
