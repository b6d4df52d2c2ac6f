"""What a user needs to know of a model before building it."""

from __future__ import annotations

from dataclasses import dataclass

from naflow_fx.models.preprocess import Preprocessing


@dataclass(frozen=True)
class ModelCard:
    """One model's facts.

    `weights`: the names of the public weights that `build` accepts, best first; empty where
    nothing is public. `weights_source`: where they come from, for people.
    """

    name: str
    description: str
    weights: tuple[str, ...]
    weights_source: str
    preprocessing: Preprocessing
    num_classes: int
    licence: str
