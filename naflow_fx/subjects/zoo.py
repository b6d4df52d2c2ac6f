"""Networks by name: those of `naflow_fx.models`."""

from __future__ import annotations

from torch import nn

from naflow_fx import models
from naflow_fx.subjects.network import Network
from naflow_fx.subjects.recipe import AS_MADE, Recipe


def open_named(recipe: Recipe) -> Network:
    """A network of `models.names()` with its card's facts."""
    chosen = None if recipe.weights == AS_MADE else recipe.weights
    card = models.card(recipe.model, chosen)

    def build(pretrained: bool) -> nn.Module:
        fetched = pretrained and recipe.weights is None
        return models.build(recipe.model, pretrained=fetched, weights=chosen, **recipe.model_args)

    weights = recipe.weights or next(iter(card.weights), None)
    embeds = not card.num_classes
    return Network(card.name, build, card.preprocessing, card.class_names, weights, embeds)
