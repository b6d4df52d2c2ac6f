"""Images of a batch never meet: a model that mixes them is refused by name when it is compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from against_hooks import largest_error
from shelf import class_one, images
from test_same_model import Net, net
from torch import Tensor, nn

import naflow_fx as nf
from naflow_fx.errors import NaflowError, TargetError

X = images((3, 12, 12))
Body = Callable[[Any, Tensor], Any]


def joined(s: Any, x: Tensor) -> Tensor:
    a, b = s.next(torch.cat([s.conv(x), s.conv(x.flip(3))])).chunk(2)
    out: Tensor = a + b
    return out


def sliced(s: Any, x: Tensor) -> Tensor:
    y = s.next(torch.cat([s.conv(x), s.conv(x.flip(3))], dim=-4))
    out: Tensor = y[: x.shape[0]] + y[x.shape[0] :]
    return out


def covariance(s: Any, x: Tensor) -> Tensor:
    y = s.conv(x)
    v = y.mean((2, 3))
    out: Tensor = y * (v.t() @ v)[:, :1, None]
    return out


def beside_a_gram(s: Any, x: Tensor) -> Tensor:
    y = s.conv(x)
    v = y.mean((2, 3))
    out: Tensor = y + torch.cat([v, v @ v.t()], 1).amax(1)[:, None, None, None]
    return out


MIXERS: dict[str, tuple[Body, str]] = {
    "mean": (lambda s, x: s.conv(x) - s.conv(x).mean(0, keepdim=True), "over the batch"),
    "sum": (lambda s, x: s.conv(x) - s.conv(x).sum(-4, keepdim=True), "over the batch"),
    "softmax": (lambda s, x: s.conv(x).softmax(0), "over the batch"),
    "std": (lambda s, x: s.conv(x) / (1 + s.conv(x).std(0, keepdim=True)), "over the batch"),
    "amax": (lambda s, x: s.conv(x) - s.conv(x).amax(0, keepdim=True), "over the batch"),
    "max": (lambda s, x: s.conv(x) - s.conv(x).max(0, keepdim=True)[0], "over the batch"),
    "norm": (lambda s, x: s.conv(x) / s.conv(x).norm(dim=0, keepdim=True), "over the batch"),
    "normalize": (lambda s, x: F.normalize(s.conv(x), dim=0), "over the batch"),
    "logsumexp": (lambda s, x: s.conv(x) - s.conv(x).logsumexp(0, keepdim=True), "over the batch"),
    "all": (lambda s, x: s.conv(x) - s.conv(x).mean(), "batch dimension mixes"),
    "first": (lambda s, x: s.conv(x) - s.conv(x)[:1], "picked out of the batch"),
    "select": (lambda s, x: s.conv(x) - s.conv(x).select(0, 0), "picked out of the batch"),
    "last": (lambda s, x: s.conv(x) - s.conv(x)[-1:], "picked out of the batch"),
    "flip": (lambda s, x: s.conv(x) + s.conv(x).flip(0), "over the batch"),
    "flip from the end": (lambda s, x: s.conv(x) + s.conv(x).flip(-4), "over the batch"),
    "roll": (lambda s, x: s.conv(x).roll(1, 0), "over the batch"),
    "roll all": (lambda s, x: s.conv(x).roll(1), "over the batch dimension mixes images"),
    "joined": (joined, "joined or split along the batch"),
    "behind a constant": (lambda s, x: s.conv(x) - torch.cat(
        [torch.ones(1, 8, 10, 10, dtype=x.dtype), s.conv(x)]).amax(0, keepdim=True),
        "cat: images are joined"),
    "beside a gram": (beside_a_gram, "cat: images are joined"),
    "sliced": (sliced, "joined or split along the batch|arithmetic with the batch"),
    "gram": (lambda s, x: s.conv(x) * torch.einsum("nchw,mchw->nm", s.conv(x), s.conv(x)).sum(
        1)[:, None, None, None], "einsum: the images of the batch are paired"),
    "covariance": (covariance, "matmul: computed over the batch"),
    "bag": (lambda s, x: (s.conv(x).mean((1, 2, 3), keepdim=True).softmax(0)
                          * s.conv(x)).sum(0, keepdim=True), "over the batch|1, 5.* for 2 images"),
    "loop": (lambda s, x: torch.cat([s.conv(i[None]) for i in x]), "for 3 images"),
}  # fmt: skip


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_what_mixes_images_is_refused_with_what_to_do(name: str, dtype: torch.dtype) -> None:
    body, message = MIXERS[name]
    with pytest.raises(NaflowError, match=message) as caught:
        nf.compile(net(body).to(dtype), X.to(dtype))
    assert "several inputs, forward(self, a, b)" in str(caught.value)
    assert "Rules exist for" not in str(caught.value)  # no rule is missing


def test_a_missing_rule_is_no_mixed_batch() -> None:
    class BatchOf(nn.Softmin):
        """A layer without a rule that has "batch" in its name."""

    BatchOf.__module__ = "torch.nn.modules.batchof"  # a leaf for tracing
    model = nn.Sequential(nn.Conv2d(3, 4, 3), BatchOf(1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(NaflowError, match="1 node has no rule") as caught:
        nf.compile(model.eval(), torch.randn(2, 3, 8, 8))
    assert "Rules exist for" in str(caught.value) and "several inputs" not in str(caught.value)


def test_a_target_that_mixes_images_is_refused() -> None:
    for target in (lambda o: o[:, 1] - o[:, 1].mean(0), lambda o: (o @ o.T).sum(1)):
        with pytest.raises(NaflowError, match="batch|another's"):
            nf.compile(net(), X, target=target)
    with pytest.raises(TargetError, match=r"shape \[1\]"):
        nf.compile(net(), X, target=lambda o: o[:1, 1])


class Twins(nn.Module):
    """Two images as two inputs: what the error tells to do."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net(lambda s, x: s.next(s.conv(x).relu()))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        out: Tensor = torch.stack([self.net(a), self.net(b)], 1).amax(1)
        return out


def test_twins_as_two_inputs_are_explained() -> None:
    model = Twins().double().eval()
    flow = nf.compile(model, (X, X.flip(3)), target=class_one)((X, X.flip(3)))
    assert {"net.conv", "net.conv_1", "a", "b"} <= set(flow.maps)


def test_ones_own_image_may_be_reduced_in_any_way() -> None:
    def body(s: Any, x: Tensor) -> Tensor:
        h = s.conv(x)
        h = h - h.mean((2, 3), keepdim=True) + h.softmax(1)
        out: Tensor = h / (1 + h.flatten(1).std(1)[:, None, None, None])
        return out

    error, _ = largest_error(net(body), X, class_one)
    assert error < 1e-9


def test_a_batch_that_is_not_in_front_makes_no_call_site() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Any:
            """[N, 3, 8, 8] -> [N, 5]."""
            y = self.conv(x).transpose(0, 1).relu().transpose(0, 1)
            return self.head(y.mean((2, 3)))

    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    flow = nf.compile(Turned().eval(), x)(x)
    assert "relu" not in flow.maps and flow.maps["conv"].shape == (2, 6, 6)
