"""Errors tell the cause that is the cause, in a few lines; nothing else reaches the terminal."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torchvision
from shelf import fill, images
from torch import Tensor, nn

import naflow_fx as nf
from naflow_fx.errors import InputError, NaflowError, TargetError, TraceError
from naflow_fx.guards import same_model
from naflow_fx.job import Job
from naflow_fx.options import Options

X = images((3, 12, 12), dtype=torch.float32)


def body(first: nn.Module | None = None) -> nn.Sequential:
    made = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(8, 5))  # fmt: skip
    fill(made)
    if first is not None:
        made[0] = first
    return made.eval()


class Quantised(nn.Conv2d):
    """Stands for torch.ao.nn.quantized's, which are no longer made without a warning."""

    __module__ = "torch.ao.nn.quantized.modules.conv"


class Keeps(nn.Module):
    """Adds what the last call left."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.last = body(), None

    def forward(self, x: Tensor) -> Any:
        h = self.net[0](x)
        h = h if self.last is None else h + self.last * 0
        self.last = h
        return self.net[4](h.mean((2, 3)))


def called_once() -> nn.Module:
    model = Keeps()
    model(torch.cat([X, X]))
    return model


def by_key(output: Any) -> Any:
    return output["logits"][:, 1]


CAUSES: dict[str, tuple[Any, Any, type[NaflowError], str]] = {
    "float64": (body(), X.double(), TraceError, r"use example.to\(torch.float32\)"),
    "float16": (body(), X.half(), TraceError, r"use example.to\(torch.float32\)"),
    "weights": (body().bfloat16(), X, TraceError, r"use example.to\(torch.bfloat16\)"),
    "lazy": (body(nn.LazyConv2d(8, 3)), X, TraceError, r"^0 \(LazyConv2d\) is lazy"),
    "meta": (body().to("meta"), X, TraceError, r"^0 \(Conv2d\) is on the meta device"),
    "meta example": (body(), X.to("meta"), InputError, "meta device, which has no values"),
    "quantised": (body(Quantised(3, 8, 3)), X, TraceError, r"^0 \(Quantised\) is quantised"),
    "no batch": (body(), X[0], TraceError, r"no batch dimension: use example\[None\]"),
    "channels last": (body(), X.movedim(1, -1), TraceError, r"use example.movedim\(-1, 1\)"),
    "two examples": (body(), [X, X], InputError, "got 2 tensors; the model's forward takes input"),
    "state": (called_once(), X, TraceError, r"keeps a tensor \[4, 8, 10, 10\] that does not fit"),
    "size": (body(nn.Conv2d(4, 8, 3)), X, TraceError, "Give an example of the size"),
}  # fmt: skip


@pytest.mark.parametrize("name", CAUSES)
def test_the_cause_is_the_cause(name: str) -> None:
    model, example, kind, words = CAUSES[name]
    with pytest.raises(kind, match=words) as caught:
        nf.compile(model, example)
    assert name == "size" or "Give an example of the size" not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "words"),
    [(lambda o: o[:, 99], "index 99"), (by_key, r"too many indices.*\n  It gets \[N, 5\]"),
     (lambda o: o.logits[:, 1], "'Tensor' object has no attribute 'logits'"),
     (lambda o: o.view(3, 7)[:, 0], "shape")],
)  # fmt: skip
def test_a_fault_of_the_target_is_the_targets(target: Any, words: str) -> None:
    with pytest.raises(TargetError, match="(?s)the callable fails on the model's output.*" + words):
        nf.compile(body(), X, target=target)


def test_a_fault_of_the_model_is_not_the_targets() -> None:
    model = body(nn.Conv2d(4, 8, 3))
    with pytest.raises(TraceError, match="(?s)doesn't run on a batch of 2.*example of the size"):
        nf.compile(model, X, target=lambda o: o[:, 1] if len(o.shape) == 2 else o[1])


class Branch(nn.Module):
    """What no graph can tell."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x


def detector() -> nn.Module:
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    made: nn.Module = torchvision.models.get_model(name, weights=None, weights_backbone=None)
    return made


@pytest.mark.parametrize("make", [Branch, detector])
def test_torchs_dumps_do_not_reach_the_person(make: Any, capfd: Any, caplog: Any) -> None:
    with pytest.raises(TraceError) as caught:
        nf.compile(make(), images((3, 64, 64), batch=1, dtype=torch.float32))
    assert tuple(capfd.readouterr()) == ("", "")
    assert not [r for r in caplog.records if r.levelno >= 30]
    assert len(str(caught.value).splitlines()) == 4
    assert re.search(r"torch.fx +\S+:\d+: ", str(caught.value))


def test_a_column_of_scores_is_told_what_to_take() -> None:
    with pytest.raises(TargetError, match=r"shape \[N, 1\].* Take its \[:, 0\]"):
        nf.compile(body(), X, target=lambda o: o[:, :1])


def test_short_memory_is_no_fault_of_the_graph() -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    job = Job(body(), (X,), None, Options())
    with pytest.raises(torch.OutOfMemoryError):
        same_model._run(full, [X], job)  # type: ignore[arg-type]
