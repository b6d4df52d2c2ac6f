"""Subject: the network that a user names, before and after it is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import naflow_fx
from naflow_fx import models
from naflow_fx.errors import TargetError
from naflow_fx.explainer import Explainer
from naflow_fx.models.card import ModelCard
from naflow_fx.models.preprocess import Preprocessing, class_index, class_names


@dataclass(frozen=True)
class Subject:
    """A network of `naflow_fx.models` with its weights.

    Attributes:
        name: of `models.names()`.
        weights: a checkpoint file or the name of public weights; None: the best public ones.
        card: what is known of it.

    Raises:
        ModelError: there is no such network.
    """

    name: str
    weights: str | None = None
    card: ModelCard = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "card", models.card(self.name, self.weights))

    @property
    def preprocessing(self) -> Preprocessing:
        """How photos become inputs."""
        return self.card.preprocessing

    @property
    def class_names(self) -> tuple[str, ...]:
        """Words for its classes, in their order; () where they are unknown."""
        return self.card.class_names

    @property
    def facts(self) -> dict[str, Any]:
        """What records say of it: its name and its weights."""
        return {"model": self.name, "weights": self.weights or next(iter(self.card.weights), None)}

    def build(self, device: torch.device | str = "cpu", pretrained: bool = True) -> nn.Module:
        """The network in eval mode.

        Args:
            device: where.
            pretrained: whether public weights are fetched where no others are named.

        Raises:
            ModelError: no such weights, or of another network.
        """
        fetched = pretrained and self.weights is None
        return models.build(self.name, pretrained=fetched, weights=self.weights).to(device)

    def example(self, device: torch.device | str = "cpu") -> Tensor:
        """An input without content, [1, 3, H, W]."""
        size = self.preprocessing.crop
        return torch.zeros(1, 3, size, size, device=device)

    def explainer(self, example: Tensor, **options: Any) -> Explainer:
        """The explainer for images like `example`, on its device; options: of `compile`."""
        return naflow_fx.compile(self.build(example.device), example, **options)

    def target(self, text: str | None) -> int | None:
        """The class of a number or a name; see `class_of`."""
        return class_of(text, self.class_names)


def class_of(text: str | None, names: Sequence[str]) -> int | None:
    """The class that a number or a name means; None for None.

    Args:
        text: of a person.
        names: words for the classes; () where they are unknown.

    Raises:
        TargetError: there is none, with the nearest names.
    """
    if text is None:
        return None
    if tuple(names) == class_names():
        return class_index(text)
    if text in names:
        return list(names).index(text)
    try:
        return int(text)
    except ValueError:
        known = ", ".join(names[:8]) or "none is known by name; give a number"
        raise TargetError(f"no class {text!r}; classes: {known}") from None
