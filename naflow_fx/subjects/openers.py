"""Which opener makes a network of a reference."""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import nn

from naflow_fx import models
from naflow_fx.errors import ModelError, raised_as
from naflow_fx.subjects import code, files, hubs
from naflow_fx.subjects.network import Network
from naflow_fx.subjects.recipe import Recipe

WEIGHTS = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")
OPENERS: dict[str, Callable[[Recipe], Network]] = {  # what a reference looks like -> who opens it
    r"timm/.*": hubs.open_timm,
    r"hf/.*": hubs.open_transformers,
    r".*\.pt2": files.open_exported,
    r".*\.onnx": files.open_onnx,
    r".*\.py(:.*)?|[\w.]+:[\w.]+": code.open_code,
}


def open_network(recipe: Recipe) -> Network:
    """The network that a recipe's `model` names.

    Raises:
        ModelError: there is none, with what there is.
    """
    model = recipe.model
    if model.lower().endswith(WEIGHTS):
        raise ModelError(f"{model}: weights, without a network; give --model file.py:Name "
                         f"--weights {model}")  # fmt: skip
    return (_opener(model) or open_named)(recipe)


def is_reference(text: str) -> bool:
    """Whether a text names a network in a file, a package or a hub, not by a known name."""
    return _opener(text) is not None


def _opener(model: str) -> Callable[[Recipe], Network] | None:
    return next((opener for form, opener in OPENERS.items() if re.fullmatch(form, model)), None)


def open_named(recipe: Recipe) -> Network:
    """A network of `models.names()` with its card's facts."""
    chosen = recipe.named_weights
    card = models.card(recipe.model, chosen)

    def build(fetched: bool) -> nn.Module:
        unfit = ModelError(f"{recipe.model}: cannot be built with {recipe.model_args}: …")
        with raised_as(unfit, TypeError):  # what has an entry of its own is among model_args
            return models.build(recipe.model, pretrained=fetched, weights=chosen,
                                **recipe.model_args)  # fmt: skip

    weights = recipe.weights or next(iter(card.weights), None)
    embeds = not card.num_classes
    return Network(card.name, build, card.preprocessing, card.class_names, weights, embeds)
