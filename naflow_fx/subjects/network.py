"""Network: what an opener tells of a network before it is built."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from PIL import Image
from torch import Tensor, nn

from naflow_fx.guards.records import pick
from naflow_fx.models.checkpoint import load_checkpoint
from naflow_fx.models.preprocess import Preprocessing
from naflow_fx.subjects.recipe import Recipe

Prepare: TypeAlias = Preprocessing | Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class Network:
    """A network that can be built.

    Attributes:
        name: what to call it.
        build: called with whether public weights are fetched; gives the network in eval mode on
            the CPU, or a torch.export.ExportedProgram.
        preprocessing: what its maker tells; None: nothing.
        class_names: likewise; () where unknown.
        weights: what to call its weights.
        embeds: its output is an embedding.
    """

    name: str
    build: Callable[[bool], Any]
    preprocessing: Prepare | None = None
    class_names: tuple[str, ...] = ()
    weights: str | None = None
    embeds: bool = False


def of_output(model: nn.Module, output: str | int | None) -> nn.Module:
    """The network with one of its outputs alone, by key or index; it shares all tensors.

    Its class is derived from the network's, so that no layer's name changes.
    """
    if output is None:
        return model
    kind: Any = type(model)

    def forward(self: nn.Module, images: Any) -> Any:
        return pick(kind.forward(self, images), output)

    found = copy.copy(model)
    found.__class__ = type(kind.__name__, (kind,), {"forward": forward})
    return found


def with_weights(model: nn.Module, recipe: Recipe) -> nn.Module:
    """The model in eval mode, with the checkpoint that a recipe may name.

    Raises:
        ModelError: no such file, or not the model's own.
    """
    if recipe.named_weights is not None:
        load_checkpoint(model, recipe.named_weights)
    return model.eval()
