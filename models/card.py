"""What a user needs to know of a model before building it."""

from __future__ import annotations

from dataclasses import dataclass

from naflow_fx.models.preprocess import Preprocessing, class_names

BY_HAND = "of the paper's other networks; get the file yourself and give its path"


@dataclass(frozen=True)
class ModelCard:
    """One model's facts.

    `weights`: the names of the public weights that `build` accepts, best first; empty where it
    can fetch none. `weights_source`: where they come from, for people. `checkpoint`: the file to
    get by hand where there are no such weights, or that nothing is public. `output`: what the
    network returns for one image. `num_classes`: 0 for a network without class scores.
    """

    name: str
    description: str
    weights: tuple[str, ...] = ()
    weights_source: str = BY_HAND
    preprocessing: Preprocessing = Preprocessing()
    num_classes: int = 0
    licence: str = "none stated"
    output: str = "class scores"
    checkpoint: str = ""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The ImageNet names of the classes in their order; empty for other classes, or none."""
        return class_names() if self.num_classes == len(class_names()) else ()
