"""A user's own layers get all that ours get: what passes know of an operator stands in its rule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from shelf import fill, images
from torch import Tensor, nn

import naflow_fx as nf
from naflow_fx import keys
from naflow_fx.rules import TABLE
from naflow_fx.solver.least_squares import LeastSquares


class Slide(nn.Module):
    """A convolution in other words."""

    def __init__(self, like: nn.Conv2d) -> None:
        super().__init__()
        self.filters, self.offset = like.weight, like.bias
        self.hop, self.border, self.teams = like.stride, like.padding, like.groups

    def forward(self, x: Tensor) -> Tensor:
        """The same numbers."""
        how = (self.hop, self.border, 1, self.teams)
        return torch.conv2d(x, self.filters, self.offset, *how)  # type: ignore[arg-type]


class Dense(nn.Module):
    """A fully connected layer in other words."""

    def __init__(self, like: nn.Linear) -> None:
        super().__init__()
        self.matrix, self.offset = like.weight, like.bias

    def forward(self, x: Tensor) -> Tensor:
        """The same numbers."""
        return x @ self.matrix.T + self.offset


def slide(
    x: Tensor, filters: Tensor, offset: Tensor | None, hop: Any, border: Any, teams: int
) -> Tensor:
    return F.conv2d(x, filters, offset, hop, border, 1, teams)


def slide_linear(v: Tensor, filters: Tensor, hop: Any, border: Any, teams: int) -> Tensor:
    return F.conv2d(v, filters, None, hop, border, 1, teams)


def slide_transpose(
    w: Tensor, filters: Tensor, hop: Any, border: Any, teams: int, input_shape: tuple[int, ...]
) -> Tensor:
    rest = [
        size - ((w.shape[i + 2] - 1) * hop[i] - 2 * border[i] + filters.shape[i + 2])
        for i, size in enumerate(input_shape[-2:])
    ]
    return F.conv_transpose2d(w, filters, None, hop, border, rest, teams)


def has_offset(offset: Tensor | None) -> bool:
    return offset is not None


SLIDE = nf.Rule(
    "slide",
    slide,
    slide_linear,
    slide_transpose,
    shift=lambda offset: None if offset is None else offset.reshape(1, -1, 1, 1),
    has_shift=has_offset,
    kernel="filters",
    scaled=lambda filters, scale: filters * scale.reshape(-1, 1, 1, 1),
    groups=lambda teams: teams,
    convolves=True,
    operands=("x",),
    equation="Eqs. 6-10, damped least squares",
    modules={
        Slide: lambda m: {"filters": m.filters, "offset": m.offset, "hop": m.hop,
                          "border": m.border, "teams": m.teams}
    },
)  # fmt: skip
DENSE = nf.Rule(
    "dense",
    lambda x, matrix, offset: F.linear(x, matrix, offset),
    lambda v, matrix: F.linear(v, matrix),
    lambda w, matrix: F.linear(w, matrix.T),
    shift=lambda offset: offset,
    has_shift=has_offset,
    kernel="matrix",
    operands=("x",),
    equation="Eqs. 6-10, damped least squares",
    modules={Dense: lambda m: {"matrix": m.matrix, "offset": m.offset}},
)


class Net(nn.Module):
    """Electrodes in time, residual regions, groups, a layer with a norm behind, a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.alone = nn.Conv2d(4, 4, 3, stride=2, padding=1, bias=False)
        self.scale = nn.BatchNorm2d(4)
        self.grouped = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.inner = nn.Conv2d(4, 4, 3, padding=1)
        self.outer = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.dense = nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, electrodes, time] -> [N, 3]."""
        h = torch.relu(self.norm(self.stem(x.unsqueeze(1))))
        h = torch.relu(self.scale(self.alone(h)))
        h = torch.relu(self.grouped(h))
        h = h + self.outer(torch.relu(self.inner(h)))  # one of them in bfloat16, both of a region
        h = h + self.dense(h.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.head(h.mean((2, 3)))  # type: ignore[no-any-return]


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The two rules, which are gone after the test."""
    for name in ("rules", "targets", "modules", "forwards"):
        monkeypatch.setattr(TABLE, name, dict(getattr(TABLE, name)))
    for rule in (SLIDE, DENSE):
        nf.register(rule)
    yield


def in_other_words(model: Any) -> nn.Module:
    """The same network of the two classes."""
    for name in ("stem", "alone", "grouped", "inner", "outer"):
        setattr(model, name, Slide(getattr(model, name)))
    model.dense = Dense(model.dense)
    return model  # type: ignore[no-any-return]


def facts(explainer: nf.Explainer) -> dict[str, Any]:
    """What the passes made of a network, without the operators' names."""
    graph = explainer.graph_module.graph
    solvers = [m for m in explainer.graph_module.modules() if isinstance(m, LeastSquares)]
    steps = {n.meta[keys.SITE]: n.meta[keys.STEP] for n in graph.nodes if keys.STEP in n.meta}
    return {
        "steps": {site: (s.kind, s.equation, len(s.operators)) for site, s in steps.items()},
        "groups": [(m.groups, m.kernels, m.whole) for m in solvers],
        "folded": sorted(n for n, _ in explainer.graph_module.named_buffers() if "solver" in n),
        "labels": [n.meta.get(keys.LABELS) for n in graph.nodes if keys.SITE in n.meta],
    }


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_layers_of_ones_own_are_explained_as_ours(precision: Any) -> None:
    x = images((6, 20), batch=2, dtype=torch.float32)
    model = fill(Net()).eval()
    inverse = nf.Inverse(steps=2, precision=precision)
    wanted = nf.compile(model, x, inverse=inverse, keep=("bpfm", "used"))
    other = nf.compile(in_other_words(model), x, inverse=inverse, keep=("bpfm", "used"))
    assert facts(other) == facts(wanted)
    assert any(groups == 2 for groups, _, _ in facts(wanted)["groups"])
    assert len(facts(wanted)["folded"]) >= 3
    a, b = wanted(x), other(x)
    assert list(a.maps) == list(b.maps) and len(a.maps) > 8
    for part in ("maps", "bpfm", "used"):
        for site, value in getattr(a, part).items():
            assert torch.equal(value, getattr(b, part)[site]), (part, site)
