"""`flow.why_zero`: which of Lambda, Z and the sign made a map zero, on networks made to do so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import naflow_fx as nf
from naflow_fx.errors import FlowError

Pair = tuple[float, float]
BOTH: Pair = (1.0, 1.0)


class Two(nn.Module):
    """Two channels, relu(w x), and a head that weighs their means."""

    def __init__(self, weights: Pair, head: Pair) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 2, 1, bias=False), nn.Linear(2, 1, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor(weights).reshape(2, 1, 1, 1))
            self.fc.weight.copy_(torch.tensor([head]))

    def forward(self, x: Tensor) -> Tensor:
        score: Tensor = self.fc(self.conv(x).relu().mean((2, 3)))
        return score


def flow_of(
    weights: Pair = BOTH, head: Pair = BOTH, x: Tensor | None = None, **chosen: Any
) -> nf.AttentionFlow:
    x = torch.ones(2, 1, 3, 3) if x is None else x
    options = {"keep": ("bpfm", "importance"), **chosen}
    flow: nf.AttentionFlow = nf.compile(Two(weights, head), x[:1], **options)(x, 0)
    return flow


@pytest.mark.parametrize(
    ("weights", "head", "wanted"),
    [
        (BOTH, BOTH, "not zero"),
        (BOTH, (0.0, 0.0), "Lambda"),  # no gradient
        ((-1.0, -1.0), BOTH, "Z"),  # ReLU has cut everything
        ((1.0, -1.0), (0.0, 1.0), "apart"),  # the head reads the channel that is cut
        (BOTH, (-1.0, -1.0), "sign"),
    ],
)
def test_each_cause(weights: Pair, head: Pair, wanted: str) -> None:
    found = flow_of(weights, head).why_zero("relu")
    assert [line.partition(":")[0] for line in found] == [wanted] * 2


@pytest.mark.parametrize("reduction", ["sum", "channelwise"])
def test_the_sums_are_in_units_of_the_score(reduction: str) -> None:
    flow = flow_of(head=(-1.0, -2.0), reduction=reduction)
    assert flow.score.tolist() == [-3, -3]  # linear in the feature map: Lambda Z sums to the score
    assert all(line.endswith("in all +0 and -3") for line in flow.why_zero("relu"))


def test_images_are_told_apart() -> None:
    x = torch.stack([torch.ones(1, 3, 3), -torch.ones(1, 3, 3), torch.full((1, 3, 3), torch.nan)])
    found = flow_of(x=x).why_zero("relu")
    assert [line.partition(":")[0] for line in found] == ["not zero", "Z", "not finite"]


@pytest.mark.parametrize("keep", [(), "bpfm", "importance"])
def test_it_says_what_it_needs(keep: Any) -> None:
    with pytest.raises(FlowError, match=r'keep=\("bpfm", "importance"\)'):
        flow_of(keep=keep).why_zero("relu")


def test_it_tells_of_the_default_method_alone() -> None:
    with pytest.raises(FlowError, match="method='layercam' has no Z"):
        flow_of(method="layercam").why_zero("relu")
    with pytest.raises(FlowError, match="no call site 'rellu'; near: relu"):
        flow_of().why_zero("rellu")
