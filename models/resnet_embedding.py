"""ResNets that end in an embedding of length 1: NPID (128 numbers) and MS (512).

NPID: Wu et al., CVPR 2018, "Unsupervised feature learning via non-parametric instance
discrimination". MS: Wang et al., CVPR 2019, "Multi-similarity loss". The keys are those of the
files that the two repositories save (github.com/zhirongw/lemniscate.pytorch,
github.com/msight-tech/research-ms-loss).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from naflow_fx.models.card import ModelCard
from naflow_fx.models.preprocess import Preprocessing
from naflow_fx.models.resnet_attention import keep_inputs
from naflow_fx.models.sides import check_sides

LEAST, MOST = 193, 224  # pixels a side at which NPID's last map is 7 x 7
NPID_BLOCKS = {
    "resnet18_npid": (BasicBlock, [2, 2, 2, 2]),
    "resnet50_npid": (Bottleneck, [3, 4, 6, 3]),
}
NPID_PLACE = "from github.com/zhirongw/lemniscate.pytorch (its links were reported dead in 2023)"


def card(name: str, weights: str | None = None) -> ModelCard:
    """The facts of `resnet18_npid`, `resnet50_npid` or `resnet50_ms`."""
    told = f"ResNet{name[6:8]} trained for retrieval, "
    if name in NPID_BLOCKS:
        return ModelCard(name, f"{told}NPID", output="128 numbers, length 1", checkpoint=NPID_PLACE)
    return ModelCard(
        name,
        f"{told}MS loss",
        preprocessing=Preprocessing(resize=256, crop=227),
        licence="CC BY-NC",
        output="512 numbers, length 1",
        checkpoint="none public",
    )


def build(name: str, weights: str | None = None, *, dimension: int | None = None) -> nn.Module:
    """The network `name` in eval mode, with random weights.

    `dimension`: of the embedding; 128 for NPID, 512 for MS unless given.
    Images [N, 3, H, W] -> embeddings [N, dimension]; H and W are 193 to 224 for NPID.
    """
    model = MsResNet(dimension or 512) if name == "resnet50_ms" else NpidResNet(name, dimension)
    keep_inputs(model)
    return model.eval()


class UnitLength(nn.Module):
    """y = x / |x|, over dimension 1; no epsilon, so that x = 0 gives NaN, as in the original."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, D] -> [N, D]."""
        return x / x.pow(2).sum(1, keepdim=True).pow(0.5)


class NpidResNet(ResNet):  # type: ignore[misc]
    """ResNet18 or ResNet50, an average pool of 7 x 7, a linear layer, length 1.

    Images [N, 3, H, W], H and W 193 to 224 -> embeddings [N, dimension]. The dot product of two
    embeddings is their cosine; kNN weights are exp(cosine / 0.07).
    """

    def __init__(self, name: str = "resnet18_npid", dimension: int | None = None) -> None:
        block, layers = NPID_BLOCKS[name]
        super().__init__(block, layers, num_classes=dimension or 128)
        self.title = name
        self.avgpool = nn.AvgPool2d(7, stride=1)
        self.l2norm = UnitLength()

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings [N, dimension]; InputError for sides other than 193 to 224 pixels."""
        check_sides(self.title, x, LEAST, MOST, "its head is a 7 x 7 average pool")
        embedding: Tensor = self.l2norm(super().forward(x))
        return embedding


class Backbone(nn.Module):
    """ResNet50 up to its pooled features; the classifier is there for the checkpoint's keys."""

    def __init__(self) -> None:
        super().__init__()
        self.model = torchvision.models.resnet50(weights=None)

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, 3, H, W] -> features [N, 2048]."""
        net = self.model
        x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
        x = net.layer4(net.layer3(net.layer2(net.layer1(x))))
        return torch.flatten(net.avgpool(x), 1)


class Head(nn.Module):
    """y = W x + b, made length 1 (length at least 1e-12); [N, 2048] -> [N, dimension]."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.fc = nn.Linear(2048, dimension)

    def forward(self, x: Tensor) -> Tensor:
        """The embedding, [N, dimension]."""
        return F.normalize(self.fc(x), p=2.0, dim=1)


class MsResNet(nn.Module):
    """ResNet50 with a linear head to an embedding of length 1; images of any size.

    Batch norm is frozen, as in its training: `train()` leaves it in eval mode.
    """

    def __init__(self, dimension: int = 512) -> None:
        super().__init__()
        self.backbone, self.head = Backbone(), Head(dimension)

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, 3, H, W] -> embeddings [N, dimension]."""
        embedding: Tensor = self.head(self.backbone(x))
        return embedding

    def train(self, mode: bool = True) -> MsResNet:
        """Sets the mode of everything but batch norm, which stays in eval mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.training = False
        return self
