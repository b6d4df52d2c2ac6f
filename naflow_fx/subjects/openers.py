"""Which opener makes a network of a reference."""

from __future__ import annotations

import re

from torch import nn

from naflow_fx import models
from naflow_fx.errors import ModelError, raised_as
from naflow_fx.subjects import code, files, hubs
from naflow_fx.subjects.network import Network
from naflow_fx.subjects.recipe import Recipe

WEIGHTS = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")


def open_network(recipe: Recipe) -> Network:
    """The network that a recipe's `model` names.

    Raises:
        ModelError: there is none, with what there is.
    """
    model = recipe.model
    if model.lower().endswith(WEIGHTS):
        raise ModelError(f"{model}: weights, without a network; give --model file.py:Name "
                         f"--weights {model}")  # fmt: skip
    if model.startswith(hubs.TIMM):
        return hubs.open_timm(recipe)
    if model.startswith(hubs.HF):
        return hubs.open_transformers(recipe)
    if model.endswith(".pt2"):
        return files.open_exported(recipe)
    if model.endswith(".onnx"):
        return files.open_onnx(recipe)
    return code.open_code(recipe) if ":" in model or model.endswith(".py") else open_named(recipe)


def open_named(recipe: Recipe) -> Network:
    """A network of `models.names()` with its card's facts."""
    chosen = recipe.named_weights
    card = models.card(recipe.model, chosen)

    def build(pretrained: bool) -> nn.Module:
        fetched = pretrained and recipe.weights is None
        unfit = ModelError(f"{recipe.model}: cannot be built with {recipe.model_args}: …")
        with raised_as(unfit, TypeError):  # what has an entry of its own is among model_args
            return models.build(recipe.model, pretrained=fetched, weights=chosen,
                                **recipe.model_args)  # fmt: skip

    weights = recipe.weights or next(iter(card.weights), None)
    embeds = not card.num_classes
    return Network(card.name, build, card.preprocessing, card.class_names, weights, embeds)


def is_reference(text: str) -> bool:
    """Whether a text names a network in a file, a package or a hub, not by a known name."""
    file = text.rpartition(":")[0] or text
    return (
        text.startswith(("timm/", "hf/"))
        or file.endswith((".py", ".pt2", ".onnx"))
        or re.fullmatch(r"[\w.]+:[\w.]+", text) is not None
    )
