"""Encoders of four convolutions for few-shot learning: Conv64F and Conv4Net.

The paper says that both use LeakyReLU, gives no slope, and names no code for them. How it is read:

* `conv64f` has the geometry and keys of RelationNet's encoder (Sung et al., CVPR 2018, which the
  paper cites for it; github.com/floodsung/LearningToCompare_FSL). `geometry="dn4"` is what DN4
  (github.com/WenbinLee/DN4) calls Conv64F: all paddings 1, its own keys.
* `conv4net` is `convnet4` of Meta-Baseline (github.com/yinboc/few-shot-meta-baseline), the one
  convolutional net of the repository that the paper cites for it; flattened output, its keys.
* `activation="leaky_relu"` with `negative_slope=0.2` is the default: the paper's kind, with the
  slope of DN4 and LibFewShot, where the name Conv64F comes from. 0.1 (Meta-Baseline's ResNet-12)
  and 0.01 (torch's default) are the alternatives. `activation="relu"` is what RelationNet's and
  Meta-Baseline's own code does; take it for checkpoints trained there. Activations have no
  parameters: the keys are the same.

Conv64F returns its feature map; flattening or pooling it is left to what compares two maps.
"""

from __future__ import annotations

import itertools
from typing import Any

from torch import Tensor, nn

from naflow_fx.models.card import ModelCard
from naflow_fx.models.preprocess import Preprocessing
from naflow_fx.models.sides import check_sides

FACTS = {  # what people call it, pixels a side, output, public checkpoint
    "conv64f": (
        "Conv64F",
        84,
        "64 maps of 19 x 19",
        "none with LeakyReLU; one with ReLU in github.com/floodsung/LearningToCompare_FSL",
    ),
    "conv4net": ("Conv4Net", 80, "1600 numbers", "none public"),
}
WIDTH = 64
ACTIVATIONS = ("relu", "leaky_relu")
# Of Conv64F: the blocks' paddings, the least side of images, the batch norms' momentum.
GEOMETRIES = {"relnet": ((0, 0, 1, 1), 10, 1.0), "dn4": ((1, 1, 1, 1), 4, 0.1)}


def card(name: str, weights: str | None = None) -> ModelCard:
    """The facts of `conv64f` or `conv4net`."""
    title, side, output, place = FACTS[name]
    return ModelCard(
        name,
        f"{title}, 4 convolutions, 113,088 parameters",
        licence="MIT",
        preprocessing=Preprocessing(side, side),
        output=output,
        checkpoint=place,
    )


def build(
    name: str,
    weights: str | None = None,
    *,
    activation: str = "leaky_relu",
    negative_slope: float = 0.2,
    **options: str | float,
) -> nn.Module:
    """`conv64f` or `conv4net` in eval mode, with random weights.

    `activation`: "leaky_relu", the paper's, of `negative_slope`, or "relu"; see the module's
    docstring for the reasons. `conv64f` takes `geometry="relnet"|"dn4"` and `momentum`, too.
    Raises ValueError or TypeError for other options.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation={activation!r}; wanted one of {', '.join(ACTIVATIONS)}")
    slope = 0.0 if activation == "relu" else negative_slope
    kind: Any = Conv4Net if name == "conv4net" else Conv64F
    encoder: nn.Module = kind(slope, **options)
    return encoder.eval()


def block(
    inputs: int, slope: float, *, padding: int = 1, momentum: float = 0.1, pool: bool = True
) -> nn.Sequential:
    """3 x 3 convolution with bias to 64 channels, batch norm, activation, and a 2 x 2 max pool.

    `slope`: of the activation below 0; 0 is ReLU. `padding`: pixels a side. `momentum`: of the
    batch norm's running statistics. Without `pool` the size stays.
    """
    convolution = nn.Conv2d(inputs, WIDTH, 3, padding=padding)
    batch_norm = nn.BatchNorm2d(WIDTH, momentum=momentum)
    activation = nn.LeakyReLU(slope) if slope else nn.ReLU()
    return nn.Sequential(convolution, batch_norm, activation, *([nn.MaxPool2d(2)] if pool else []))


class Conv4Net(nn.Module):
    """Four blocks of convolution, batch norm, activation and pool, then flattened.

    Images [N, 3, H, W], sides of 16 pixels and more -> embeddings [N, 64 (H / 16) (W / 16)],
    rounded down: 1600 numbers at 80 and at 84 pixels.
    """

    def __init__(self, slope: float = 0.2) -> None:
        super().__init__()
        blocks = [block(inputs, slope) for inputs in (3, WIDTH, WIDTH, WIDTH)]
        self.encoder = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings [N, 1600] at 80 or 84 pixels; InputError for sides below 16 pixels."""
        check_sides("conv4net", x, 16)
        y: Tensor = self.encoder(x)
        return y.flatten(1)


class Conv64F(nn.Module):
    """Four blocks, pools after the first two; its children in their order make the map.

    Images [N, 3, H, W] -> maps [N, 64, h, w]. `geometry`: "relnet", RelationNet's encoder,
    paddings 0, 0, 1, 1, for sides of 10 pixels and more, 19 x 19 at 84; or "dn4", DN4's encoder
    and its flat keys, all paddings 1, for sides of 4 pixels and more, H / 4 x W / 4.
    `momentum`: of the batch norms, the original's unless given. RelationNet's, 1, keeps the
    statistics of the last training batch alone; train with 0.1 for a network to be used in eval
    mode. Raises ValueError for another geometry.
    """

    def __init__(
        self, slope: float = 0.2, *, geometry: str = "relnet", momentum: float | None = None
    ) -> None:
        if geometry not in GEOMETRIES:
            raise ValueError(f"geometry={geometry!r}; wanted one of {', '.join(GEOMETRIES)}")
        super().__init__()
        paddings, self.least, usual = GEOMETRIES[geometry]
        momentum = usual if momentum is None else momentum
        blocks = [
            block(WIDTH if i else 3, slope, padding=padding, momentum=momentum, pool=i < 2)
            for i, padding in enumerate(paddings)
        ]
        if geometry == "dn4":
            self.features = nn.Sequential(*itertools.chain.from_iterable(blocks))
        else:
            self.layer1, self.layer2, self.layer3, self.layer4 = blocks

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, 64, h, w]; InputError for smaller sides."""
        check_sides("conv64f", x, self.least)
        for part in self.children():
            x = part(x)
        return x
