"""ResNet50 with attention gates: CBAM in every block, or BAM between the stages.

Woo et al., ECCV 2018; Park et al., BMVC 2018. Keys and arithmetic are those of the authors' code
(github.com/Jongchan/attention-module), whose checkpoints load strictly. Both end in an average
pool of 7 x 7, not a global one: at 256 pixels and more, the classifier reads the top left 7 x 7
positions of the last map alone.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from naflow_fx.errors import InputError
from naflow_fx.models.card import ModelCard
from naflow_fx.models.sides import check_sides

REDUCTION = 16  # of the channels inside a gate
LEAST, MOST = 193, 416  # pixels a side: the last map has 7 to 13 positions, the pool gives one
FACTS = {  # description, the published file
    "resnet50_cbam": ("ResNet50 with CBAM in each of its 16 blocks, 28.1 million parameters",
                      "RESNET50_CBAM_new_name_wrap.pth"),
    "resnet50_bam": ("ResNet50 with BAM after its first three stages, 25.9 million parameters",
                     "RESNET50_IMAGENET_BAM_best.pth.tar"),
}  # fmt: skip


def card(name: str, weights: str | None = None) -> ModelCard:
    """The facts of `resnet50_cbam` or `resnet50_bam`."""
    description, file = FACTS[name]
    place = f"{file} on Google Drive, from github.com/Jongchan/attention-module"
    return ModelCard(name, description, num_classes=1000, licence="MIT", checkpoint=place)


def build(name: str, weights: str | None = None, *, num_classes: int = 1000) -> nn.Module:
    """`resnet50_cbam` or `resnet50_bam` in eval mode, with random weights.

    Images [N, 3, H, W], H and W 193 to 416 -> class scores [N, num_classes].
    """
    kind = CbamResNet if name == "resnet50_cbam" else BamResNet
    return nn.Module.eval(kind(num_classes))


class ChannelGate(nn.Module):
    """y = sigmoid(mlp(average of x) + mlp(maximum of x)) x, a factor for each channel.

    x, y: [N, channels, H, W]; average and maximum are over H x W.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // REDUCTION
        self.mlp = nn.Sequential(
            nn.Flatten(), nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """The gated map, [N, channels, H, W]."""
        average, largest = F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1)
        scale = torch.sigmoid(self.mlp(average) + self.mlp(largest))
        return x * scale.unsqueeze(2).unsqueeze(3).expand_as(x)


class SpatialGate(nn.Module):
    """y = sigmoid(bn(conv([max over channels, mean over channels]))) x, a factor a position.

    x, y: [N, C, H, W]; the convolution is 7 x 7.
    """

    def __init__(self) -> None:
        super().__init__()
        convolution = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        batch_norm = nn.BatchNorm2d(1, momentum=0.01)
        self.spatial = nn.Sequential(OrderedDict(conv=convolution, bn=batch_norm))

    def forward(self, x: Tensor) -> Tensor:
        """The gated map, [N, C, H, W]."""
        compressed = torch.cat([x.max(1, keepdim=True)[0], x.mean(1, keepdim=True)], 1)
        return x * torch.sigmoid(self.spatial(compressed))


class Cbam(nn.Sequential):
    """A channel gate, then a spatial gate on its output; [N, channels, H, W] -> the same."""

    def __init__(self, channels: int) -> None:  # the names are the checkpoint's keys
        gates = OrderedDict(ChannelGate=ChannelGate(channels), SpatialGate=SpatialGate())
        super().__init__(gates)


class CbamBottleneck(Bottleneck):  # type: ignore[misc]
    """torchvision's bottleneck with CBAM after its last batch norm, before the sum."""

    def __init__(self, inplanes: int, planes: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(inplanes, planes, *args, **kwargs)
        self.cbam = Cbam(planes * self.expansion)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, [N, 4 planes, H / stride, W / stride]."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.cbam(self.bn3(self.conv3(y)))
        shortcut = x if self.downsample is None else self.downsample(x)
        out: Tensor = self.relu(y + shortcut)
        return out


class GatedResNet(ResNet):  # type: ignore[misc]
    """ResNet50 whose head is an average pool of 7 x 7 that must give one position."""

    def __init__(self, title: str, block: type[nn.Module], num_classes: int) -> None:
        super().__init__(block, [3, 4, 6, 3], num_classes)
        self.title = title
        self.avgpool = nn.AvgPool2d(7)
        keep_inputs(self)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores [N, num_classes]; InputError for sides other than 193 to 416 pixels."""
        check_sides(self.title, x, LEAST, MOST, "its head is a 7 x 7 average pool")
        scores: Tensor = super().forward(x)
        return scores


class CbamResNet(GatedResNet):
    """ResNet50 with CBAM in every block; images [N, 3, H, W] -> class scores."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__("resnet50_cbam", CbamBottleneck, num_classes)


class BamChannel(nn.Module):
    """A number for each channel from the average of x, [N, C, H, W] -> the same shape.

    The original pools with a kernel of H x H on both axes: it reads the left H x H positions,
    which is everything on square maps, and fails unless H <= W < 2 H.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // REDUCTION
        first, last = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        self.gate_c = nn.Sequential(
            OrderedDict(
                flatten=nn.Flatten(),
                gate_c_fc_0=first,
                gate_c_bn_1=nn.BatchNorm1d(hidden),
                gate_c_relu_1=nn.ReLU(),
                gate_c_fc_final=last,
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """The channel's number at every position; InputError unless H <= W < 2 H."""
        _check_square(x)
        average = F.avg_pool2d(x, x.size(2), stride=x.size(2))
        number: Tensor = self.gate_c(average)
        return number.unsqueeze(2).unsqueeze(3).expand_as(x)


class BamSpatial(nn.Module):
    """A number for each position: 1 x 1, two dilated 3 x 3, 1 x 1; the same in every channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // REDUCTION
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["gate_s_conv_reduce0"] = nn.Conv2d(channels, hidden, 1)
        layers["gate_s_bn_reduce0"] = nn.BatchNorm2d(hidden)
        layers["gate_s_relu_reduce0"] = nn.ReLU()
        for i in range(2):
            layers[f"gate_s_conv_di_{i}"] = nn.Conv2d(hidden, hidden, 3, padding=4, dilation=4)
            layers[f"gate_s_bn_di_{i}"] = nn.BatchNorm2d(hidden)
            layers[f"gate_s_relu_di_{i}"] = nn.ReLU()
        layers["gate_s_conv_final"] = nn.Conv2d(hidden, 1, 1)
        self.gate_s = nn.Sequential(layers)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> the same shape."""
        number: Tensor = self.gate_s(x)
        return number.expand_as(x)


class Bam(nn.Module):
    """y = (1 + sigmoid(channel * spatial)) x, on [N, channels, H, W].

    The product, as in the authors' code and so in its checkpoint; their text has the sum.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel_att = BamChannel(channels)
        self.spatial_att = BamSpatial(channels)

    def forward(self, x: Tensor) -> Tensor:
        """The gated map, [N, channels, H, W]."""
        gate = 1 + torch.sigmoid(self.channel_att(x) * self.spatial_att(x))
        return gate * x


class BamResNet(GatedResNet):
    """ResNet50 with BAM after layer1, layer2 and layer3; images [N, 3, H, W] -> class scores.

    Square images are what it is made for; see `BamChannel` on others.
    """

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__("resnet50_bam", Bottleneck, num_classes)
        self.bam1, self.bam2, self.bam3 = Bam(256), Bam(512), Bam(1024)

    def _forward_impl(self, x: Tensor) -> Tensor:
        """What torchvision's forward calls, with the gates in their places."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.bam1(self.layer1(x))
        x = self.bam2(self.layer2(x))
        x = self.bam3(self.layer3(x))
        scores: Tensor = self.fc(torch.flatten(self.avgpool(self.layer4(x)), 1))
        return scores


def keep_inputs(model: nn.Module) -> None:
    """Turns off `inplace` everywhere: an activation that somebody recorded stays what it was."""
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False


def _check_square(x: Any) -> None:
    """Nothing if a kernel of H x H gives one position; symbolic tracing has no sizes to check."""
    if isinstance(x, Tensor) and not x.shape[2] <= x.shape[3] < 2 * x.shape[2]:
        height, width = x.shape[2:]
        raise InputError(
            f"resnet50_bam: a gate got a map of {height} x {width}; its average pool "
            f"of {height} x {height} takes square maps, and wider ones below "
            f"{2 * height} columns (of which it leaves out the right ones); give "
            "square images"
        )
