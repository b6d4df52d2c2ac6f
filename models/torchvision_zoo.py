"""torchvision's convolutional classifiers, by torchvision's own names."""

from __future__ import annotations

import re
from functools import cache
from http.client import HTTPException
from typing import Any

import torchvision
from torch import nn
from torchvision.models import WeightsEnum

from naflow_fx.errors import ModelError, raised_as
from naflow_fx.models.card import ModelCard
from naflow_fx.models.preprocess import Preprocessing

TRANSFORMERS = ("maxvit*", "swin*", "vit*")
# What torchvision sets on these two when it loads its weights, so that a file of the same weights
# sees the same input; and how to draw random ones, about which their constructors else warn.
INCEPTIONS = ("googlenet", "inception_v3")
INCEPTION_OPTIONS = {"transform_input": True, "init_weights": True}


@cache
def names() -> list[str]:
    """Names of the classification networks of torchvision, sorted, without the transformers."""
    return list(torchvision.models.list_models(torchvision.models, exclude=TRANSFORMERS))


def card(name: str, weights: str | None = None) -> ModelCard:
    """The facts of the network `name`, read from torchvision's own weight records."""
    records = _classifiers(name)
    chosen = next((w for w in records if w.name == weights), records[0])
    millions = chosen.meta["num_params"] / 1e6
    return ModelCard(
        name,
        f"torchvision's {name}, {millions:.1f} million parameters",
        weights=tuple(w.name for w in records),
        preprocessing=_preprocessing(chosen),
        weights_source="torchvision, downloaded at the first use",
        licence="BSD-3-Clause (code); the weights were trained on ImageNet",
        num_classes=len(chosen.meta["categories"]),
    )


def build(name: str, weights: str | None = None, **options: Any) -> nn.Module:
    """The network `name` in eval mode, random or with torchvision's weights of the name `weights`.

    Raises ModelError if the weights cannot be had; TypeError and ValueError, as torchvision does,
    for options that the network does not take.
    """
    if weights is None:
        if name in INCEPTIONS:
            options = INCEPTION_OPTIONS | options
        model: nn.Module = torchvision.models.get_model(name, weights=None, **options)
        return model.eval()
    record = torchvision.models.get_model_weights(name)[weights]
    lacking = ModelError(
        f"{name}: could not load {weights}, published at {record.url} (…); if the "
        "download failed, fetch it elsewhere and give its path as the "
        "weights"
    )
    with raised_as(lacking, OSError, HTTPException, RuntimeError):  # the last: another hash, shape
        model = torchvision.models.get_model(name, weights=record, progress=False, **options)
    return model.eval()


def readable_key(key: str) -> str:
    """Today's name of a key of torchvision's published files: DenseNet's `norm.1` is `norm1`."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", key)


def _classifiers(name: str) -> list[WeightsEnum]:
    """The records of whole classifiers' weights, at least one, torchvision's default first."""
    records: type[WeightsEnum] = torchvision.models.get_model_weights(name)
    complete = [w for w in records if w.meta["categories"]]  # vgg16 has features alone, too
    return sorted(complete, key=lambda w: w is not records.DEFAULT)


def _preprocessing(weights: WeightsEnum) -> Preprocessing:
    """What torchvision does to a photo for these weights."""
    use = weights.transforms()
    return Preprocessing(
        use.resize_size[0],
        use.crop_size[0],
        tuple(use.mean),
        tuple(use.std),
        interpolation=use.interpolation.value,
    )
