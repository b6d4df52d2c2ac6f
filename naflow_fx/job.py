"""Job: what one compilation works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from naflow_fx.options import Options
from naflow_fx.similarity import Similarity
from naflow_fx.targets import Score


@dataclass(frozen=True)
class Job:
    """The model, an example of each image input, a target and the options.

    Attributes:
        model: as the user gave it; never changed.
        examples: one [N, C, ...space] per image input.
        target: a callable of the model's output; None: class indices come with each call.  Of a
            `Similarity` the example is a batch of pairs: queries, then their supports.
        options: resolved.
    """

    model: Any
    examples: tuple[Tensor, ...]
    target: Score | Similarity | None
    options: Options

    @property
    def rows(self) -> int:
        """Images that make one sample of the program: 1, or of pairs more."""
        return self.target.rows if isinstance(self.target, Similarity) else 1


Build = Callable[[Job], fx.GraphModule]  # from a job to its program
