"""Every operator in a small network, by both front ends: Lambda is autograd's, maps are finite."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from shelf import fill, images, relative_error, unit
from torch import Tensor, nn

import naflow_fx as nf
from naflow_fx.errors import UnsupportedOperator

Function = Callable[[Tensor], Tensor]


@functools.cache
def weight(*shape: int) -> Tensor:
    """A constant of that shape; drawn before anything is traced."""
    return unit(f"weight {shape}", shape).double()


def pooled(x: Tensor) -> Tensor:
    """[N, C, 1, 1]."""
    return x.mean((2, 3), keepdim=True)


def attention(x: Tensor) -> Tensor:
    """A squeeze-excite gate, [N, C, 1, 1]."""
    return torch.sigmoid(pooled(x))


def eca(x: Tensor) -> Tensor:
    """Efficient channel attention: a convolution along the channels."""
    y = pooled(x).squeeze(-1).transpose(-1, -2)
    y = F.conv1d(y, weight(1, 1, 3), padding=1)
    return x * torch.sigmoid(y.transpose(-1, -2).unsqueeze(-1)).expand_as(x)


def spatial(x: Tensor) -> Tensor:
    """CBAM's spatial gate."""
    both = torch.cat([torch.max(x, 1)[0].unsqueeze(1), torch.mean(x, 1).unsqueeze(1)], 1)
    return x * torch.sigmoid(F.conv2d(both, weight(1, 2, 3, 3), padding=1))


def shuffle(x: Tensor) -> Tensor:
    """ShuffleNet's channel shuffle."""
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def response(x: Tensor) -> Tensor:
    """ConvNeXt V2's global response normalisation."""
    size = x.norm(p=2, dim=(2, 3), keepdim=True)
    result: Tensor = x + 0.5 * (x * (size / (size.mean(1, keepdim=True) + 1e-6))) + 0.1
    return result


def last_norm(x: Tensor) -> Tensor:
    """ConvNeXt's layer norm over the channels."""
    return F.layer_norm(x.permute(0, 2, 3, 1), (4,), weight(4)).permute(0, 3, 1, 2)


def generalised_mean(x: Tensor) -> Tensor:
    """GeM."""
    return x.clamp(min=1e-6).pow(3).mean((2, 3), keepdim=True).pow(1 / 3) + x


def selective(x: Tensor) -> Tensor:
    """A selective-kernel unit: two branches, weighted by a softmax over them."""
    both = torch.stack([x, x.relu()], 1)
    share = both.mean((3, 4), keepdim=True).softmax(1)
    return (both * share).sum(1)


OPERATORS: dict[str, Function] = {
    "abs": torch.abs,
    "addcmul": lambda x: torch.addcmul(weight(4, 1, 1), weight(1, 4, 1, 1), x),
    "amax": lambda x: x - x.amax((2, 3), keepdim=True),
    "bam": lambda x: x * (1 + torch.sigmoid(pooled(x) + x.mean(1, keepdim=True))),
    "bicubic": lambda x: F.interpolate(x, size=(9, 12), mode="bicubic"),
    "bilinear": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "casts": lambda x: x.to(memory_format=torch.channels_last).double(),
    "celu": F.celu,
    "channel_shuffle": lambda x: F.channel_shuffle(x, 2),
    "chunk": lambda x: x.chunk(2, 1)[0] * x.chunk(2, 1)[1].sigmoid(),
    "clamp": lambda x: x.clamp(-1, 1),
    "clamp_min": lambda x: x.clamp_min(0.2),
    "conv_transpose": lambda x: F.conv_transpose2d(x, weight(4, 3, 3, 3), stride=2),
    "div": lambda x: x / 2,
    "eca": eca,
    "einsum": lambda x: torch.einsum("nchw,cd->ndhw", x, weight(4, 3)),
    "elu": F.elu,
    "exp": torch.exp,
    "expand": lambda x: pooled(x).expand(-1, -1, 6, 6) + x,
    "flip": lambda x: x.flip(2),
    "flip by name": lambda x: torch.flip(x, dims=[2, 3]),
    "gate of gate": lambda x: x * (attention(x) * torch.sigmoid(x.mean(1, keepdim=True))),
    "gelu": F.gelu,
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "gem": generalised_mean,
    "group_norm": lambda x: F.group_norm(x, 2),
    "hard sigmoid by hand": lambda x: F.relu6(x + 3) / 6,
    "hardswish": F.hardswish,
    "hardtanh": F.hardtanh,
    "instance_norm": F.instance_norm,
    "layer_norm": lambda x: F.layer_norm(x, (6,), weight(6)),
    "layer_norm of channels": last_norm,
    "lerp": lambda x: torch.lerp(x, x.relu(), 0.3),
    "local_response_norm": lambda x: F.local_response_norm(x, 3, alpha=0.5),
    "log": lambda x: (x.abs() + 0.1).log(),
    "log_sigmoid": F.logsigmoid,
    "log_softmax": lambda x: F.log_softmax(x, 1),
    "logsumexp": lambda x: x + torch.logsumexp(x, (2, 3), keepdim=True),
    "matmul": lambda x: x @ weight(6, 6),
    "matmul from the left": lambda x: torch.matmul(weight(6, 6), x),
    "max feature map": lambda x: torch.max(*torch.split(x, 2, 1)),
    "max of a dimension": lambda x: x + torch.max(x, 1, keepdim=True).values,
    "maximum": lambda x: torch.maximum(x, 1 - x),
    "max_pool with indices": lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
    "mish": F.mish,
    "movedim": lambda x: x.movedim(1, -1).movedim(-1, 1),
    "mT": lambda x: x.mT,
    "narrow": lambda x: torch.narrow(x, 2, 1, 4),
    "narrow from the end": lambda x: x.narrow(-1, -4, 4),
    "nearest": lambda x: F.interpolate(x, size=(12, 12)),
    "neg": lambda x: -x,
    "normalize": F.normalize,
    "permute by name": lambda x: torch.permute(x, dims=(0, 1, 3, 2)),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x, 2),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "pow": lambda x: x.pow(2) + x**3,
    "prelu by name": lambda x: F.prelu(x, weight=weight(4)),
    "product": lambda x: x * x.roll(1, 2),
    "reciprocal": lambda x: 2 / (x * x + 1),
    "reduction by hand": lambda x: (x - pooled(x)) / (x.std((2, 3), keepdim=True) + 1e-3),
    "repeat": lambda x: pooled(x).repeat(1, 1, 6, 6) + x,
    "repeat_interleave": lambda x: x.repeat_interleave(2, 2),
    "response norm": response,
    "roll": lambda x: torch.roll(x, (1, 1), (2, 3)),
    "rsqrt": lambda x: (x * x + 1).rsqrt() * x,
    "rsub": lambda x: 1 - x,
    "selective kernel": selective,
    "selu": F.selu,
    "shuffle": shuffle,
    "silu": F.silu,
    "softmax": lambda x: x.softmax(1),
    "softmax gate": lambda x: x * F.softmax(pooled(x), 1),
    "softplus": F.softplus,
    "softsign": F.softsign,
    "spatial gate": spatial,
    "split": lambda x: torch.cat(torch.split(x, 2, 1)[::-1], 1),
    "split with sizes": lambda x: torch.split(x, [1, 3], 1)[1],
    "square": lambda x: x.square(),
    "squeeze-excite": lambda x: x * attention(x),
    "squeeze-excite, expanded": lambda x: attention(x).expand_as(x) * x,
    "squeeze-excite, gate first": lambda x: torch.mul(attention(x), x),
    "stack": lambda x: torch.stack([x, x.relu()], 2).flatten(1, 2),
    "stack along an axis": lambda x: torch.stack([x, x.relu()], axis=2).flatten(1, 2),  # type: ignore[call-arg]
    "stack behind all": lambda x: torch.stack([x, x.relu()], 4).flatten(3),
    "stack of numbers": lambda x: x * torch.stack([x.mean((1, 2, 3))] * 4, 1)[:, :, None, None],
    "swapaxes": lambda x: x.swapaxes(2, 3),
    "tanh": torch.tanh,
    "tensor_split": lambda x: torch.tensor_split(x, 2, 1)[1],
    "tile": lambda x: torch.tile(x, (1, 1, 2, 1)),
    "unbind": lambda x: x.unbind(1)[0].unsqueeze(1) + x,
    "up to the size of": lambda x: F.interpolate(F.max_pool2d(x, 2), size=x.shape[2:]) + x,
    "std along an axis": lambda x: x / (1 + x.std(axis=1, keepdims=True)),  # type: ignore[call-overload]
    "unbind along an axis": lambda x: x + x.unbind(axis=1)[0].unsqueeze(axis=1),  # type: ignore[call-arg]
    "var": lambda x: x / (x.var(1, keepdim=True, unbiased=False) + 0.1).sqrt(),
}


class Network(nn.Module):
    """Convolution, operator, convolution, pool, linear layer."""

    def __init__(self, function: Function, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(channels, 5, 3, padding=1)
        self.last = nn.Linear(5, 4)
        self.function = function

    def tail(self, y: Tensor) -> Tensor:
        """From the first convolution's output to the logits."""
        result: Tensor = self.last(self.second(self.function(y)).mean((2, 3)))
        return result

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.first(x))


def network(name: str) -> Network:
    """The operator's network, with weights drawn from names."""
    function = OPERATORS[name]
    channels = function(torch.ones(2, 4, 6, 6, dtype=torch.float64)).shape[1]
    made = fill(Network(function, channels)).double().eval()
    assert isinstance(made, Network)
    return made


@pytest.mark.parametrize("name", OPERATORS)
def test_importance_is_autograds_by_both_front_ends(name: str) -> None:
    model, x = network(name), images((3, 6, 6))
    x = x + unit(str(zlib.crc32(name.encode())), tuple(x.shape)).double()
    y = model.first(x).detach().requires_grad_()
    score = model.tail(y).amax(1).sum()
    (wanted,) = torch.autograd.grad(score, y)
    batch = torch.export.Dim("batch", min=2)
    exported = torch.export.export(model, (x,), dynamic_shapes=({0: batch},))
    for source in (model, exported):
        flow = nf.compile(source, x, keep="importance")(x)
        assert relative_error(flow.importance["first"], wanted) < 1e-9
        assert all(bool(m.isfinite().all()) for m in flow.maps.values())


GATES = [
    "bam", "eca", "gate of gate", "softmax gate", "spatial gate", "squeeze-excite",
    "squeeze-excite, expanded", "squeeze-excite, gate first",
]  # fmt: skip


@pytest.mark.parametrize("name", GATES)
def test_a_gates_branch_is_captured_and_not_inverted(name: str) -> None:
    explainer = nf.compile(network(name), images((3, 6, 6)))
    rows = {row.layer: row for row in explainer.inspect().rows}
    assert rows["first"].kind == "damped diagonal", rows["first"]
    assert all(row.region == "-" for row in rows.values())
    assert {row.kind for row in rows.values() if row.operator in ("sigmoid", "mean", "amax")} <= {
        "control"
    }


def test_an_index_of_a_maximum_is_no_activation() -> None:
    class Index(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.max(x, 1, keepdim=True)[1]

    with pytest.raises(UnsupportedOperator, match="index of a maximum has no derivative"):
        nf.compile(Index(), images((3, 6, 6)), target=lambda y: y.mean((1, 2, 3)))
