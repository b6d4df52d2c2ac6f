"""Models by name: the bundled one, those of the paper, torchvision's convolutional classifiers.

A model file has two functions: `card(name, weights)`, its facts, and
`build(name, weights, **options)`, the network in eval mode, random or with its public
weights. It may have a third, `readable_key(key)`, the network's name of a published file's key.
To add a model, write such a file and name it in FILES. Model files are imported when asked for:
torchvision takes time.
"""

from __future__ import annotations

import difflib
import importlib
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from torch import nn

from naflow_fx.errors import ModelError, raised_as
from naflow_fx.models.card import ModelCard
from naflow_fx.models.checkpoint import Checkpoint, load_checkpoint
from naflow_fx.models.preprocess import Preprocessing
from naflow_fx.models.unpickle import Inert

__all__ = [
    "Checkpoint",
    "Inert",
    "ModelCard",
    "Preprocessing",
    "build",
    "card",
    "load_checkpoint",
    "names",
]

# Model name -> the file of this package that builds it; every other name is torchvision's.
# The paper's nine are these without the first three, and torchvision's resnet18 and resnet50.
FILES = {
    "efficientnet_lite0": "efficientnet_lite",
    "efficientnet_lite1": "efficientnet_lite",
    "efficientnet_lite2": "efficientnet_lite",
    "resnet50_cbam": "resnet_attention",
    "resnet50_bam": "resnet_attention",
    "resnet18_npid": "resnet_embedding",
    "resnet50_npid": "resnet_embedding",
    "conv64f": "few_shot_encoders",
    "conv4net": "few_shot_encoders",
    "resnet50_ms": "resnet_embedding",
}


def names() -> list[str]:
    """Every name that `build` takes: those of FILES in its order, then torchvision's, sorted."""
    from naflow_fx.models import torchvision_zoo

    return list(FILES) + [name for name in torchvision_zoo.names() if name not in FILES]


def card(name: str, weights: str | PathLike[str] | None = None) -> ModelCard:
    """The facts of the model `name`; ModelError, with the nearest names, if there is none.

    Public weights of one network can differ in preprocessing: the card has that of `weights`, or
    of the best weights if `weights` names none.
    """
    found: ModelCard = _file(name).card(name, None if weights is None else fspath(weights))
    return found


def build(
    name: str,
    *,
    pretrained: bool = False,
    weights: str | PathLike[str] | None = None,
    **options: Any,
) -> nn.Module:
    """The network `name` in eval mode, on the CPU, float32.

    Random without `pretrained` and `weights`. `pretrained=True`: the best public weights.
    `weights`: the name of public weights (`card(name).weights`), "DEFAULT" for the best, or the
    path of a checkpoint file. `options` go to the network's constructor, such as `num_classes`.
    Raises ModelError: no such model, weights, file or option; a checkpoint of another network;
    a download that failed.
    """
    file = _file(name)
    card = file.card(name)
    if weights is None and pretrained:
        weights = "DEFAULT"
    public = weights == "DEFAULT" or weights in card.weights
    if public and not card.weights:
        where = f" ({card.checkpoint})" if card.checkpoint else ""
        raise ModelError(
            f"{name}: no weights that can be fetched{where}; give the path of a checkpoint"
        )
    if weights is not None and not public and not Path(weights).is_file():
        raise ModelError(
            f"{name}: {fspath(weights)!r} is neither a checkpoint file nor public "
            f"weights (those are: {', '.join(card.weights) or 'none'})"
        )
    chosen = card.weights[0] if weights == "DEFAULT" else weights
    shown = ", ".join(f"{key}={value!r}" for key, value in options.items()) or "no options"
    unfit = ModelError(f"{name}: cannot be built with {shown}: …")
    with raised_as(unfit, TypeError, ValueError):  # what constructors raise on options
        model: nn.Module = file.build(name, chosen if public else None, **options)
    if weights is not None and not public:
        load_checkpoint(model, weights, rename=getattr(file, "readable_key", str))
    return model


def _file(name: str) -> Any:
    """The module that builds `name`."""
    if name not in FILES and name not in (known := names()):
        near = ", ".join(difflib.get_close_matches(name, known, n=5))
        how = "`naflow-fx models` lists them; your own is FILE.py:NAME, net.pt2 or net.onnx"
        raise ModelError(f"no model {name!r}; {f'near: {near}' if near else how}")
    return importlib.import_module(f"naflow_fx.models.{FILES.get(name, 'torchvision_zoo')}")
