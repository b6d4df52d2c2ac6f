"""Measured: figures per method, metric, layer and image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from naflow_fx.errors import EvaluationError, table
from naflow_fx.evaluation.bootstrap import Array, Estimate, estimate
from naflow_fx.evaluation.metrics import METRICS

FIFTHS = 5
INPUT = "input"  # the layer of methods that have none


@dataclass(frozen=True, eq=False)
class Scores:
    """One metric of one method: values [L, N] of its layers, in forward order."""

    layers: tuple[str, ...]
    values: Array


@dataclass(frozen=True, eq=False)
class Measured:
    """What `nf.evaluate` found.

    Attributes:
        dataset: its name.
        images: N names.
        groups: int64 [N]; the bootstrap draws groups.
        depth: layer -> 0 (first call site) to 1 (last).
        scores: method -> metric -> `Scores`.
        share: of each image that is evidence, [N]: the energy of a map without content.
        facts: what a reader of the figures should know, plain data.
    """

    dataset: str
    images: tuple[str, ...]
    groups: NDArray[np.int64]
    depth: dict[str, float]
    scores: dict[str, dict[str, Scores]]
    share: Array | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def methods(self) -> list[str]:
        """Names of the methods."""
        return list(self.scores)

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics that any method has, in the order of `METRICS`."""
        found = {metric for of_method in self.scores.values() for metric in of_method}
        return [name for name in METRICS if name in found]

    def values(self, method: str, metric: str, fifth: int | None = None) -> Array:
        """Each image's mean over the layers (of one fifth of the depth, 0 to 4), [N].

        NaN where there is no layer.  EvaluationError: no such method or metric.
        """
        found = self._scores(method, metric)
        chosen = [i for i, layer in enumerate(found.layers)
                  if fifth is None or self.fifth(layer) == fifth]  # fmt: skip
        empty: Array = np.full(len(self.images), np.nan)
        return found.values[chosen].mean(0) if chosen else empty

    def fifth(self, layer: str) -> int:
        """Which fifth of the depth a layer lies in, 0 to 4."""
        return min(int(self.depth[layer] * FIFTHS), FIFTHS - 1)

    def has_depth(self, method: str, metric: str) -> bool:
        """Whether it was measured at layers, not at the input alone."""
        return self._scores(method, metric).layers != (INPUT,)

    def mean(self, method: str, metric: str, fifth: int | None = None) -> Estimate:
        """Mean over layers and images with its bootstrap interval."""
        return estimate(self.values(method, metric, fifth), self.groups)

    def difference(
        self, method: str, other: str, metric: str, fifth: int | None = None
    ) -> Estimate:
        """Mean of method minus other, over the layers of both, with a paired bootstrap's interval.

        EvaluationError: they were measured at different layers.
        """
        if self._scores(method, metric).layers != self._scores(other, metric).layers:
            raise EvaluationError(f"{metric} of {method!r} and {other!r}: different layers")
        first, second = (self.values(name, metric, fifth) for name in (method, other))
        return estimate(first - second, self.groups)

    def per_layer(self, method: str, metric: str) -> dict[str, Estimate]:
        """Layer -> mean over images with its interval."""
        found = self._scores(method, metric)
        return {layer: estimate(row, self.groups)
                for layer, row in zip(found.layers, found.values, strict=True)}  # fmt: skip

    def rows(self, metrics: Sequence[str] | None = None) -> list[list[str]]:
        """A table as text: a header, then each method's means with their intervals."""
        wanted = list(metrics or self.metrics)
        head = ["method", *(f"{m}{ARROWS[METRICS[m].better]}" for m in wanted)]
        body = [[name, *(str(self.mean(name, m)) if m in self.scores[name] else "" for m in wanted)]
                for name in self.scores]  # fmt: skip
        return [head, *body]

    def fifths(self, metric: str) -> list[list[str]]:
        """A table as text: each method's mean in each fifth of the depth, first to last."""
        head = [metric, *(f"{i * 20} to {i * 20 + 20} %" for i in range(FIFTHS)), "all"]
        body = []
        for name in self.scores:
            if metric in self.scores[name]:
                places = range(FIFTHS if self.has_depth(name, metric) else 0)
                means = [float(self.values(name, metric, i).mean()) for i in (*places, None)]
                means = [np.nan] * (FIFTHS - len(places)) + means
                body.append([name, *("" if np.isnan(m) else f"{m:.3f}" for m in means)])
        return [head, *body]

    def __str__(self) -> str:
        """The table, aligned for a terminal."""
        return table(self.rows(), indent="")

    def merged(self, other: Self) -> Self:
        """Both results' figures for the same images; the other's where both have some."""
        if self.images != other.images or self.dataset != other.dataset:
            raise EvaluationError(f"{self.dataset!r} and {other.dataset!r}: other images")
        names = list(dict.fromkeys([*self.scores, *other.scores]))
        both = {n: {**self.scores.get(n, {}), **other.scores.get(n, {})} for n in names}
        depth, facts = {**self.depth, **other.depth}, {**self.facts, **other.facts}
        return replace(self, depth=depth, scores=both, facts=facts)

    def to_json(self) -> dict[str, Any]:
        """All figures as plain data, rounded to 5 digits; `from_json` reads it."""
        scores = {
            method: {m: {"layers": list(s.layers), "values": np.round(s.values, 5).tolist()}
                     for m, s in of_method.items()}
            for method, of_method in self.scores.items()
        }  # fmt: skip
        share = None if self.share is None else np.round(self.share, 5).tolist()
        depth = {layer: round(place, 5) for layer, place in self.depth.items()}
        return {"dataset": self.dataset, "images": list(self.images), "share": share,
                "groups": self.groups.tolist(), "facts": self.facts, "depth": depth,
                "scores": scores}  # fmt: skip

    def _scores(self, method: str, metric: str) -> Scores:
        try:
            return self.scores[method][metric]
        except KeyError:
            have = ", ".join(f"{n} ({', '.join(m)})" for n, m in self.scores.items())
            raise EvaluationError(f"no {metric!r} of {method!r}; there are: {have}") from None


ARROWS = {"higher": " ↑", "lower": " ↓", "": ""}
