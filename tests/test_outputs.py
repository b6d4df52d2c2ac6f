"""Outputs with fields are read as their users write them; modules with several results work."""

from __future__ import annotations

import collections
import dataclasses
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import naflow_fx as nf
from naflow_fx.errors import TargetError, UnsupportedOperator
from naflow_fx.guards.records import form_of, like, map_tensors, plain
from naflow_fx.passes import trace as tracing


class Named(NamedTuple):
    logits: Any
    features: Any = None


@dataclasses.dataclass
class Data:
    logits: Any
    features: Any = None
    note: str = "kept"


@dataclasses.dataclass(frozen=True)
class Frozen:
    logits: Any
    features: Any


@dataclasses.dataclass
class Face(collections.OrderedDict[str, Any]):
    """As Hugging Face's ModelOutput: items and attributes in step, what is None is no item."""

    logits: Any = None
    features: Any = None
    loss: Any = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) is not None:
                self[field.name] = getattr(self, field.name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self and value is not None:
            super().__setitem__(name, value)
        super().__setattr__(name, value)


class Mapped(collections.UserDict[str, Any]):
    @property
    def logits(self) -> Any:
        return self["logits"]


KINDS: dict[str, Callable[..., Any]] = {
    "named": Named,
    "data": Data,
    "frozen": lambda y, f: Frozen(y, Named(y * 2, [f, (f, None)])),
    "face": Face,
    "mapped": lambda y, f: Mapped(logits=y, features=f),
    "namespace": lambda y, f: types.SimpleNamespace(logits=y, features=f, note="kept"),
}


class Wrapped(nn.Module):
    """A classifier whose output is a record."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.conv, self.fc, self.kind = nn.Conv2d(3, 6, 3), nn.Linear(6, 5), kind

    def forward(self, x: Tensor) -> Any:
        features = F.relu(self.conv(x))
        found = Named(self.fc(features.mean((2, 3))), features)
        return KINDS[self.kind](found.logits, found.features)


def images(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 9, 9, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("front", ["fx", "export"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_record_is_read_as_its_users_write_it(
    kind: str, front: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if front == "export":
        monkeypatch.setattr(tracing, "_symbolic", lambda *_: 1 / 0)
    torch.manual_seed(0)
    model, x = Wrapped(kind).eval(), images()
    explainer = nf.compile(model, x, target=lambda output: output.logits[:, 2])
    flow, output = explainer(x), model(x)
    torch.testing.assert_close(flow.score, output.logits[:, 2].detach())
    assert type(flow.output) is type(output)
    torch.testing.assert_close(flow.output.logits, output.logits.detach())
    assert getattr(flow.output, "note", "kept") == "kept"
    again = explainer(x, [lambda one: one.logits[2]] * 2)
    torch.testing.assert_close(again.maps["conv"], flow.maps["conv"])
    assert type(again.output) is type(output)
    assert flow[1].output.logits.shape == (1, 5) and type(flow.cpu().output) is type(output)
    with pytest.raises(TargetError, match=rf"returns a {type(output).__name__} \(logits, features"):
        nf.compile(model, x)


def test_a_program_gives_its_record_back() -> None:
    torch.manual_seed(0)
    model, x = Wrapped("named").eval(), images()
    flow = nf.compile(exported(model, x), x, target=lambda output: output.logits[:, 2])(x)
    torch.testing.assert_close(flow.output, model(x))
    assert type(flow.output) is Named


@pytest.mark.parametrize("kind", ["face", "frozen"])
def test_files_hold_records_as_names(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Wrapped(kind).eval(), images()
    explainer = nf.compile(model, x, target=lambda output: output.logits[:, 2], layers="conv")
    loaded = nf.artefacts.load(explainer.export(tmp_path / "x.pt2"))
    assert "output.logits" in {value.name for value in loaded.metadata.outputs}
    flow = loaded(x)
    torch.testing.assert_close(flow.output["logits"], model(x).logits.detach())
    torch.testing.assert_close(flow.maps["conv"], explainer(x).maps["conv"])


def test_records_and_their_forms() -> None:
    one, two = torch.ones(2), torch.zeros(2)
    value: Any = {"a": [Data(one, (two, None)), 3], "b": Face(one, loss=two), "c": None, 7: "x"}
    flat = plain(value)
    assert flat == {"a": [{"logits": one, "features": (two, None)}, 3],
                    "b": {"logits": one, "loss": two}, "c": None, 7: "x"}  # fmt: skip
    form = form_of(value)
    assert "tensor" not in repr(form)
    back = like(form, flat)
    assert back["a"][0] == value["a"][0] and back["a"][0] is not value["a"][0]
    assert back["b"].loss is two and list(back["b"]) == ["logits", "loss"] and back[7] == "x"
    doubled = map_tensors(lambda t: t + 1, value)
    assert doubled["a"][0].logits.tolist() == [2, 2] and value["a"][0].logits is one
    assert doubled["b"]["logits"].tolist() == [2, 2] == doubled["b"].logits.tolist()


class SegNet(nn.Module):
    """Pools that hand their indices to unpools, as modules and as functions."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.mid, self.up = (nn.Conv2d(i, o, 3, padding=1)
                                        for i, o in ((3, 6), (6, 6), (6, 4)))  # fmt: skip
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)

    def forward(self, x: Tensor) -> Any:
        a = F.relu(self.down(x))
        b, first = self.pool(a)
        c, second = F.max_pool2d(F.relu(self.mid(b)), 2, return_indices=True)
        d = F.max_unpool2d(c, second, [2, 2], output_size=b.shape)
        return self.up(self.unpool(d, first, output_size=a.size())).mean((2, 3))


def exported(model: nn.Module, x: Tensor) -> torch.export.ExportedProgram:
    return torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},))


@pytest.mark.parametrize("front", ["fx", "export"])
def test_pools_with_indices(front: str) -> None:
    torch.manual_seed(0)
    model, x = SegNet().double().eval(), images().double()
    given: Any = model if front == "fx" else exported(model, x)
    flow = nf.compile(given, x, keep="importance")(x, target=1)
    torch.testing.assert_close(flow.output, model(x).detach())
    leaf = x.clone().requires_grad_()
    model(leaf)[:, 1].sum().backward()
    torch.testing.assert_close(flow.importance["x"], leaf.grad)
    assert {"down", "pool", "mid", "max_unpool2d", "unpool", "up"} <= set(flow.maps)
    assert flow.maps["pool"].shape == (2, 4, 4) and flow.maps["unpool"].shape == (2, 9, 9)
    assert all(bool(m.isfinite().all()) for m in flow.maps.values())


def test_unpooled_neurons_that_nothing_fills_are_zero() -> None:
    torch.manual_seed(0)
    model, x = SegNet().double().eval(), images().double()
    flow = nf.compile(model, x, keep="bpfm")(x, target=1)
    with torch.no_grad():
        winners = model.pool(F.relu(model.down(x)))[1]
    z = torch.zeros(2, 6, 81, dtype=torch.bool).scatter(2, winners.flatten(2), True)
    assert bool((flow.bpfm["relu"].flatten(2)[~z] == 0).all())  # Eq. 14


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("adaptive", [True, False])
def test_a_pool_whose_indices_nobody_reads(rank: int, adaptive: bool) -> None:
    """It is the pool without them, at the same call site."""
    torch.manual_seed(0)
    kind = f"{'Adaptive' if adaptive else ''}MaxPool{rank}d"
    pool = getattr(nn, kind)(2, return_indices=True)
    conv, x = getattr(nn, f"Conv{rank}d")(2, 3, 3), torch.randn(2, 2, *(7,) * rank)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool = conv, pool

        def forward(self, x: Tensor) -> Any:
            return self.pool(self.conv(x))[0].flatten(2).sum(2)

    flow = nf.compile(Model(), x)(x, 0)
    pool.return_indices = False
    plain = nf.compile(nn.Sequential(collections.OrderedDict(
        conv=conv, pool=pool, flat=nn.Flatten(2), sum=_Sum())), x)(x, 0)  # fmt: skip
    for name in ("conv", "pool"):
        torch.testing.assert_close(flow.maps[name], plain.maps[name])


class _Sum(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return x.sum(2)


def test_other_modules_with_several_results_are_refused_by_name() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.lstm = nn.Conv1d(3, 4, 3), nn.LSTM(4, 5, batch_first=True)

        def forward(self, x: Tensor) -> Any:
            return self.lstm(self.conv(x).transpose(1, 2))[0][:, -1]

    with pytest.raises(UnsupportedOperator, match=r"lstm +torch.nn.modules.rnn.LSTM"):
        nf.compile(Recurrent(), torch.randn(2, 3, 9))
