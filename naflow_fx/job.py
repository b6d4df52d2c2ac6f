"""Job: what one compilation works with.  Pass: one step of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from naflow_fx.options import Options
from naflow_fx.rules.contract import parameters
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
    def images_per_sample(self) -> int:
        """Images that make one sample of the program: 1, or of pairs more."""
        return self.target.images_per_sample if isinstance(self.target, Similarity) else 1


Build = Callable[[Job], fx.GraphModule]  # from a job to its program


@dataclass(frozen=True)
class Pass:
    """One step of the pipeline, and what must hold after it.

    Both functions take the graph (the first pass: the model) and ask for what else they need by
    parameter name: a field of the `Job`, or `job` itself.

    Attributes:
        run: graph -> graph; it changes nothing that it is given.
        check: raises where the result is not what the next pass takes; None: nothing to check.
    """

    run: Callable[..., fx.GraphModule]
    check: Callable[..., None] | None = None

    def __call__(self, state: Any, job: Job) -> fx.GraphModule:
        """The checked result."""
        result: fx.GraphModule = _ask(self.run, state, job)
        self.verify(result, job)
        return result

    def verify(self, gm: fx.GraphModule, job: Job) -> None:
        """Raises what `check` raises."""
        if self.check is not None:
            _ask(self.check, gm, job)


def _ask(function: Callable[..., Any], state: Any, job: Job) -> Any:
    """``function(state, ...)`` with what it asks for by name."""
    wanted = parameters(function)[1:]
    return function(state, **{k: job if k == "job" else getattr(job, k) for k in wanted})
