"""Ten-line networks, each with one thing that graph compilers get wrong.

HAZARDS: name -> class, called without arguments; random weights; input [N, *shape].
EXPORTED: those that only `torch.export` takes.
UNTRACEABLE: those that no tracing gets right, which must be met with an error.
"""

# ruff: noqa: D102 - the class says what forward does

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 5


class Hazard(nn.Module):
    """A network of inputs [N, *shape]; ends in a global average pool and a linear layer."""

    shape: ClassVar[tuple[int, ...]] = (3, 12, 12)


def conv(inputs: int, outputs: int, size: int = 3, **options: Any) -> nn.Conv2d:
    """A convolution that keeps the image's size."""
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **options)


def head(channels: int) -> nn.Sequential:
    """Pool, flatten, linear: [N, channels, H, W] -> [N, CLASSES]."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))


class SharedConv(Hazard):
    """One convolution called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.relu, self.head = conv(3, 6), conv(6, 6), nn.ReLU(), head(6)

    def forward(self, x: Tensor) -> Any:
        x = self.relu(self.stem(x))
        return self.head(self.relu(self.conv(self.relu(self.conv(x)))))


class ReusedReLU(Hazard):
    """One ReLU called three times, as in stock ResNets."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(3, 6), nn.BatchNorm2d(6)
        self.conv2, self.conv3 = conv(6, 6), conv(6, 6)
        self.relu, self.head = nn.ReLU(), head(6)

    def forward(self, x: Tensor) -> Any:
        x = self.relu(self.bn1(self.conv1(x)))
        return self.head(self.relu(self.conv3(self.relu(self.conv2(x)))))


class InPlace(Hazard):
    """In-place ReLU and `+=` around a residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.bn = conv(3, 6), conv(6, 6), nn.BatchNorm2d(6)
        self.relu, self.head = nn.ReLU(inplace=True), head(6)

    def forward(self, x: Tensor) -> Any:
        x = self.relu(self.stem(x))
        y = self.bn(self.conv(x))
        y += x
        return self.head(self.relu(y))


class PreActivation(Hazard):
    """An identity that is read after an in-place ReLU has overwritten it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn, self.conv = conv(3, 6), nn.BatchNorm2d(6), conv(6, 6)
        self.relu, self.head = nn.ReLU(inplace=True), head(6)

    def forward(self, x: Tensor) -> Any:
        x = self.bn(self.stem(x))
        y = self.conv(self.relu(x))
        return self.head(x + y)


class OverwrittenCopy(Hazard):
    """An in-place ReLU behind dropout and identity, which hand their input on as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.head = conv(3, 6), conv(6, 6), head(6)
        self.drop, self.same = nn.Dropout(0.5), nn.Identity()

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        y = F.relu(self.same(self.drop(x)), inplace=True)
        return self.head(self.conv(y) + x)


class Functional(Hazard):
    """No modules at all, only parameters and functions, some of them in place."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight1 = nn.Parameter(torch.randn(6, 3, 3, 3))
        self.bias1 = nn.Parameter(torch.zeros(6))
        self.weight2 = nn.Parameter(torch.randn(CLASSES, 6))
        self.register_buffer("running_mean", torch.zeros(6))
        self.register_buffer("running_var", torch.ones(6))

    def forward(self, x: Tensor) -> Any:
        x = F.conv2d(x, self.weight1, self.bias1, stride=1, padding=1)
        x = F.relu(F.batch_norm(x, self.running_mean, self.running_var), inplace=True)
        x = torch.relu_(F.max_pool2d(x, 3, stride=2, ceil_mode=True) - 0.5)
        x = F.dropout(F.adaptive_avg_pool2d(x, 1), training=self.training)
        return F.linear(torch.flatten(x, 1), self.weight2)


class ViewFlatten(Hazard):
    """Flattening by `view(x.size(0), -1)`, and a linear layer that sees every position."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.fc = conv(3, 4, stride=2), nn.ReLU(), nn.Linear(4 * 36, CLASSES)

    def forward(self, x: Tensor) -> Any:
        x = self.relu(self.conv(x))
        return self.fc(x.view(x.size(0), -1))


class NestedResidual(Hazard):
    """A residual block inside a residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv1, self.conv2 = conv(3, 6), conv(6, 6), conv(6, 6)
        self.relu, self.head = nn.ReLU(), head(6)

    def forward(self, x: Tensor) -> Any:
        x = self.relu(self.stem(x))
        y = self.relu(self.conv1(x))
        z = y + self.conv2(y)
        return self.head(self.relu(z + x))


class NestedConcat(Hazard):
    """A concatenation of a concatenation, and of the fork itself."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv1, self.conv2 = conv(3, 4), conv(4, 4, 1), conv(4, 4)
        self.conv3, self.pool, self.head = conv(8, 4), nn.MaxPool2d(3, 1, 1), head(12)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.stem(x))
        inner = torch.cat([self.conv1(x), self.conv2(x)], 1)
        return self.head(torch.cat([F.relu(self.conv3(inner)), self.pool(x), x], 1))


class Inception(Hazard):
    """Four branches of different depth that are concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.head = conv(3, 6, stride=2), conv(6, 2, 1), head(11)
        self.three = nn.Sequential(conv(6, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), conv(4, 4))
        self.five = nn.Sequential(conv(6, 3, 1), nn.ReLU(), conv(3, 3, 5))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(6, 2, 1))

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.stem(x))
        branches = [self.one(x), self.three(x), self.five(x), self.pool(x)]
        return self.head(F.relu(torch.cat(branches, dim=1)))


class DenseBlock(Hazard):
    """Every layer reads all earlier ones: no series-parallel region."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv1, self.conv2 = conv(3, 4), conv(4, 4), conv(8, 4)
        self.bn1, self.bn2, self.head = nn.BatchNorm2d(4), nn.BatchNorm2d(8), head(12)

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        y = self.conv1(F.relu(self.bn1(x)))
        z = self.conv2(F.relu(self.bn2(torch.cat([x, y], 1))))
        return self.head(F.relu(torch.cat([x, y, z], 1)))


class Gate(Hazard):
    """Squeeze and excitation: x times a sigmoid of its own pooled channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.head = conv(3, 6), conv(6, 6), head(6)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), conv(6, 3, 1), nn.ReLU(), conv(3, 6, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.stem(x))
        return self.head(F.relu(self.conv(x * self.gate(x))))


class NestedGate(Hazard):
    """A gate whose own input is gated; the gate is the left factor."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.head = conv(3, 6), conv(6, 6), head(6)
        self.outer, self.inner = conv(6, 6, 1), conv(6, 6, 1)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.stem(x))
        pooled = F.adaptive_avg_pool2d(x, 1)
        gate = torch.sigmoid(self.outer(pooled * torch.sigmoid(self.inner(pooled))))
        return self.head(F.relu(self.conv(gate * x)))


class SpatialGate(Hazard):
    """CBAM's spatial gate: a map of weights from the largest and the mean over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.head = conv(3, 6), conv(2, 1, 5), head(6)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.stem(x))
        largest, mean = torch.max(x, 1)[0].unsqueeze(1), torch.mean(x, 1).unsqueeze(1)
        return self.head(x * torch.sigmoid(self.conv(torch.cat((largest, mean), dim=1))))


class Doubled(Hazard):
    """The same tensor twice: x + x, and x beside x."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.head = conv(3, 6), conv(12, 6), head(6)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.stem(x))
        x = x + x
        return self.head(F.relu(self.conv(torch.cat([x, x], 1))))


class Dropout(Hazard):
    """Dropout, identity and batch norm, which do other things in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn, self.conv2 = conv(3, 6), nn.BatchNorm2d(6), conv(6, 6)
        self.drop2d, self.drop, self.same = nn.Dropout2d(0.5), nn.Dropout(0.5), nn.Identity()
        self.head = head(6)

    def forward(self, x: Tensor) -> Any:
        x = self.drop2d(F.relu(self.bn(self.conv1(x))))
        x = F.dropout(self.same(self.conv2(x)), 0.5, self.training)
        return self.head(self.drop(F.relu(x)))


class ChannelShuffle(Hazard):
    """ShuffleNet's shuffle: view, transpose, view; grouped and depthwise convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv1 = conv(3, 8), conv(8, 8, 1, groups=2)
        self.conv2, self.head = conv(8, 8, groups=8, bias=False), head(8)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.conv1(F.relu(self.stem(x))))
        n, c, h, w = x.size()
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)
        return self.head(F.relu(self.conv2(x)))


class TwoHeads(Hazard):
    """Two outputs from two depths, as a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv1, self.conv2 = conv(3, 6), conv(6, 6), conv(6, 4)
        self.main, self.auxiliary = head(6), head(4)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.stem(x))
        return self.main(F.relu(self.conv1(x))), self.auxiliary(F.relu(self.conv2(x)))


class TwoPools(Hazard):
    """Global average and max pool side by side: two feature nodes that share a fork."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.fc = conv(3, 6), conv(6, 6), nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.stem(x))
        y = F.relu(self.conv(x))
        pooled = [F.adaptive_avg_pool2d(y, 1), F.adaptive_max_pool2d(x, 1)]
        return self.fc(torch.cat(pooled, 1).flatten(1))


class PaddingModes(Hazard):
    """Convolutions that pad by reflection, replication, wrapping, or to the same size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = conv(3, 4, padding_mode="reflect")
        self.conv2 = conv(4, 4, 5, padding_mode="replicate", stride=2)
        self.conv3 = conv(4, 4, padding_mode="circular", dilation=2)
        self.conv4 = nn.Conv2d(4, 4, 4, padding="same", dilation=2)
        self.pad, self.head = nn.ZeroPad2d((0, 1, 0, 1)), head(4)

    def forward(self, x: Tensor) -> Any:
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = F.relu(layer(x))
        return self.head(self.pad(x))


class TiedWeights(Hazard):
    """Two convolutions with one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv1, self.conv2 = conv(3, 6), conv(6, 6), conv(6, 6, bias=False)
        self.conv2.weight, self.head = self.conv1.weight, head(6)

    def forward(self, x: Tensor) -> Any:
        return self.head(F.relu(self.conv2(F.relu(self.conv1(F.relu(self.stem(x)))))))


class DefaultArguments(Hazard):
    """A forward with more parameters, all with defaults, and control flow on them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.head = conv(3, 6), conv(6, 6), head(6)

    def forward(
        self, x: Tensor, scale: float = 2.0, mask: Tensor | None = None, features: bool = False
    ) -> Any:
        x = F.relu(self.stem(x)) * scale
        if mask is not None:
            x = x * mask
        x = F.relu(self.conv(x))
        return x if features else self.head(x)


class StandardisedConv(Hazard):
    """A convolution whose weight is computed from a parameter, as in weight standardisation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.weight = conv(3, 6), nn.Parameter(torch.randn(6, 6, 3, 3))
        self.head = head(6)

    def forward(self, x: Tensor) -> Any:
        w = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        w = w / (w.pow(2).mean((1, 2, 3), keepdim=True) * 54 + 1e-5).sqrt()
        return self.head(F.relu(F.conv2d(F.relu(self.conv(x)), w, padding=1)))


class Parametrised(Hazard):
    """Weight normalisation: the module's class and its weight are made when it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.utils.parametrizations.weight_norm(conv(3, 6))
        self.relu, self.head = nn.ReLU(), head(6)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.relu(self.conv(x)))


class NumberedNames(Hazard):
    """Submodules with names that look like repeated calls."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_1, self.conv_2, self.conv_10 = conv(3, 6), conv(6, 6), conv(6, 6)
        self.head = head(6)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.conv_2(F.relu(self.conv_1(x))))
        return self.head(F.relu(self.conv_10(F.relu(self.conv_2(x)))))


class ChannelsLast(Hazard):
    """Linear layers over channels that were moved to the end, as in ConvNeXt."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix, self.head = conv(3, 6), nn.Linear(6, 8), head(8)

    def forward(self, x: Tensor) -> Any:
        x = self.mix(F.relu(self.stem(x)).permute(0, 2, 3, 1))
        return self.head(F.relu(x).permute(0, 3, 1, 2))


class ScaledChain(Hazard):
    """Convolution, batch norm and LeakyReLU or PReLU: one least squares each."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.act1 = conv(3, 6), nn.BatchNorm2d(6), nn.LeakyReLU(0.1)
        self.conv2, self.bn2, self.act2 = conv(6, 6, 1), nn.BatchNorm2d(6), nn.PReLU(6)
        self.head = head(6)

    def forward(self, x: Tensor) -> Any:
        x = self.act1(self.bn1(self.conv1(x)))
        return self.head(self.act2(self.bn2(self.conv2(x))))


class MeanHead(Hazard):
    """A fully convolutional network whose class scores are means over space."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(3, 6), conv(6, CLASSES, 1)

    def forward(self, x: Tensor) -> Any:
        return self.conv2(F.relu(self.conv1(x))).mean((-2, -1))


class Signal(Hazard):
    """One space dimension."""

    shape = (2, 20)

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn = nn.Conv1d(2, 5, 5, padding=2), nn.BatchNorm1d(5)
        self.pool, self.conv2 = nn.MaxPool1d(2), nn.Conv1d(5, 6, 3, dilation=2)
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Any:
        x = self.conv2(self.pool(F.relu(self.bn(self.conv1(x)))))
        return self.fc(F.adaptive_avg_pool1d(F.relu(x), 1).squeeze(-1))


class Volume(Hazard):
    """Three space dimensions."""

    shape = (2, 6, 6, 6)

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn = nn.Conv3d(2, 4, 3, padding=1), nn.BatchNorm3d(4)
        self.pool, self.conv2 = nn.AvgPool3d(2), nn.Conv3d(4, 5, 1)
        self.fc = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.conv2(self.pool(F.relu(self.bn(self.conv1(x))))))
        return self.fc(F.adaptive_avg_pool3d(x, 1).flatten(1))


class OverwrittenView(Hazard):
    """Writes in place into a view of a tensor: no edge of the traced graph says so."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = conv(3, 6), head(6)

    def forward(self, x: Tensor) -> Any:
        x = self.conv(x)
        x[:, :3].relu_()
        return self.head(x)


class RandomInEval(Hazard):
    """Draws a random number in eval mode, too: tracing keeps the one that it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = conv(3, 6), head(6)

    def forward(self, x: Tensor) -> Any:
        return self.head(F.relu(self.conv(x)) * (1 + torch.rand(1)))


class BranchOnValues(Hazard):
    """Control flow on the values of a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = conv(3, 6), head(6)

    def forward(self, x: Tensor) -> Any:
        x = self.conv(x)
        if x.mean() > 0:
            x = F.relu(x)
        return self.head(x)


class PlainList(Hazard):
    """A layer in a plain Python list, which `parameters()` does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.head = [conv(3, 6), nn.BatchNorm2d(6)], head(6)

    def forward(self, x: Tensor) -> Any:
        for layer in self.layers:
            x = layer(x)
        return self.head(F.relu(x))


HAZARDS: Mapping[str, type[Hazard]] = {
    "shared_conv": SharedConv,
    "reused_relu": ReusedReLU,
    "in_place": InPlace,
    "pre_activation": PreActivation,
    "overwritten_copy": OverwrittenCopy,
    "functional": Functional,
    "view_flatten": ViewFlatten,
    "nested_residual": NestedResidual,
    "nested_concat": NestedConcat,
    "inception": Inception,
    "dense_block": DenseBlock,
    "gate": Gate,
    "nested_gate": NestedGate,
    "spatial_gate": SpatialGate,
    "doubled": Doubled,
    "dropout": Dropout,
    "channel_shuffle": ChannelShuffle,
    "two_heads": TwoHeads,
    "two_pools": TwoPools,
    "padding_modes": PaddingModes,
    "tied_weights": TiedWeights,
    "default_arguments": DefaultArguments,
    "standardised_conv": StandardisedConv,
    "parametrised": Parametrised,
    "numbered_names": NumberedNames,
    "channels_last": ChannelsLast,
    "scaled_chain": ScaledChain,
    "mean_head": MeanHead,
    "signal": Signal,
    "volume": Volume,
}
EXPORTED: Mapping[str, type[Hazard]] = {"plain_list": PlainList}
UNTRACEABLE: Mapping[str, type[Hazard]] = {
    "overwritten_view": OverwrittenView,
    "random_in_eval": RandomInEval,
    "branch_on_values": BranchOnValues,
}
