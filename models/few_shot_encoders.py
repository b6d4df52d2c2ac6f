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

from torch import Tensor, nn

from naflow_fx.models.card import BY_HAND, ModelCard
from naflow_fx.models.preprocess import Preprocessing
from naflow_fx.models.sides import check_sides

WIDTH = 64
ACTIVATIONS = ("relu", "leaky_relu")
PADDINGS = {"relnet": (0, 0, 1, 1), "dn4": (1, 1, 1, 1)}


def card(name: str, weights: str | None = None) -> ModelCard:
    """The facts of `conv64f` or `conv4net`."""
    four = name == "conv4net"
    side = 80 if four else 84
    return ModelCard(
        name=name,
        description=f"{'Conv4Net' if four else 'Conv64F'}, 4 convolutions, 113,088 parameters",
        weights=(),
        weights_source=BY_HAND,
        preprocessing=Preprocessing(resize=side, crop=side),
        num_classes=0,
        licence="MIT",
        output="1600 numbers" if four else "64 maps of 19 x 19",
        checkpoint=(
            "none public"
            if four
            else "none with LeakyReLU; one with ReLU in github.com/floodsung/LearningToCompare_FSL"
        ),
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
    encoder = Conv4Net if name == "conv4net" else conv64f
    return encoder(slope, **options).eval()  # type: ignore[arg-type]


def block(
    inputs: int, slope: float, *, padding: int = 1, momentum: float = 0.1, pool: bool = True
) -> nn.Sequential:
    """3 x 3 convolution with bias to 64 channels, batch norm, activation, and a 2 x 2 max pool.

    `slope`: of the activation below 0; 0 is ReLU. `padding`: pixels a side. `momentum`: of the
    batch norm's running statistics. Without `pool` the size stays.
    """
    layers = [
        nn.Conv2d(inputs, WIDTH, 3, padding=padding),
        nn.BatchNorm2d(WIDTH, momentum=momentum),
        nn.LeakyReLU(slope) if slope else nn.ReLU(),
    ]
    return nn.Sequential(*layers, *([nn.MaxPool2d(2)] if pool else []))


def blocks_of_two_pools(geometry: str, slope: float, momentum: float) -> list[nn.Sequential]:
    """The four blocks of a `conv64f`, pools after the first two."""
    return [
        block(WIDTH if i else 3, slope, padding=padding, momentum=momentum, pool=i < 2)
        for i, padding in enumerate(PADDINGS[geometry])
    ]


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
    """Four blocks, paddings 0, 0, 1, 1, pools after the first two; RelationNet's encoder.

    Images [N, 3, H, W], sides of 10 pixels and more -> maps [N, 64, h, w]: 19 x 19 at 84 pixels.
    `momentum`: of the batch norms, RelationNet's 1 unless given, which keeps the statistics of
    the last training batch alone; train with 0.1 for a network to be used in eval mode.
    """

    def __init__(self, slope: float = 0.2, momentum: float = 1.0) -> None:
        super().__init__()
        for number, made in enumerate(blocks_of_two_pools("relnet", slope, momentum), start=1):
            self.add_module(f"layer{number}", made)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, 64, h, w]; InputError for sides below 10 pixels."""
        check_sides("conv64f", x, 10)
        for layer in self.children():
            x = layer(x)
        return x


class Conv64FOfDn4(nn.Module):
    """Four blocks, all paddings 1, pools after the first two; DN4's encoder, its flat keys.

    Images [N, 3, H, W], sides of 4 pixels and more -> maps [N, 64, H / 4, W / 4]: 21 x 21 at 84.
    """

    def __init__(self, slope: float = 0.2, momentum: float = 0.1) -> None:
        super().__init__()
        blocks = blocks_of_two_pools("dn4", slope, momentum)
        self.features = nn.Sequential(*itertools.chain.from_iterable(blocks))

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, 64, H / 4, W / 4]; InputError for sides below 4 pixels."""
        check_sides("conv64f", x, 4)
        y: Tensor = self.features(x)
        return y


def conv64f(slope: float = 0.2, *, geometry: str = "relnet", **momentum: float) -> nn.Module:
    """`Conv64F`, or `Conv64FOfDn4` for `geometry="dn4"`; ValueError for another geometry."""
    if geometry not in PADDINGS:
        raise ValueError(f"geometry={geometry!r}; wanted one of {', '.join(PADDINGS)}")
    return (Conv64F if geometry == "relnet" else Conv64FOfDn4)(slope, **momentum)
