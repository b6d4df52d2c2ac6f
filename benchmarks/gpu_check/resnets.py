"""ResNets as torchvision has them, for a machine that lacks it: its names, weights and results.

He et al., CVPR 2016; the stride of a bottleneck is at its 3 x 3 convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


class Block(nn.Module):
    """Two 3 x 3 convolutions, or with an `expansion` 1 x 1, 3 x 3, 1 x 1; plus the input."""

    def __init__(self, inputs: int, width: int, stride: int, expansion: int) -> None:
        super().__init__()
        outputs, kernels = width * expansion, (3, 3) if expansion == 1 else (1, 3, 1)
        self.relu = nn.ReLU(inplace=True)
        for i, kernel in enumerate(kernels, 1):
            step = stride if i == len(kernels) - 1 else 1
            widths = inputs if i == 1 else width, outputs if i == len(kernels) else width
            self.add_module(f"conv{i}", nn.Conv2d(*widths, kernel, step, kernel // 2, bias=False))
            self.add_module(f"bn{i}", nn.BatchNorm2d(widths[1]))
        self.layers = len(kernels)
        shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        self.downsample = None if same else nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] -> [N, width expansion, H / stride, W / stride]."""
        y = x
        for i in range(1, self.layers + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = self.relu(y) if i < self.layers else y
        y += x if self.downsample is None else self.downsample(x)
        out: Tensor = self.relu(y)
        return out


class ResNet(nn.Module):
    """Scores [N, classes] of images [N, 3, H, W]; `blocks` of each stage, `width` of the first."""

    def __init__(
        self, blocks: Sequence[int], expansion: int = 1, width: int = 64, classes: int = 1000
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs, self.stages = width, len(blocks)
        for stage, count in enumerate(blocks):
            made = []
            for i in range(count):
                stride = 2 if stage and not i else 1
                made.append(Block(inputs, width << stage, stride, expansion))
                inputs = (width << stage) * expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*made))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """The scores before the softmax."""
        y: Any = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in range(1, self.stages + 1):
            y = getattr(self, f"layer{stage}")(y)
        scores: Tensor = self.fc(self.avgpool(y).flatten(1))
        return scores


RESNETS: dict[str, tuple[Sequence[int], int]] = {
    "resnet18": ((2, 2, 2, 2), 1),
    "resnet50": ((3, 4, 6, 3), 4),
}
