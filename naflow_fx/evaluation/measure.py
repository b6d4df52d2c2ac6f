"""`evaluate`: every metric, of every explainer, at every layer, for every image."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from naflow_fx.errors import EvaluationError, one_of, unfit
from naflow_fx.evaluation.data import EvaluationSet, Explain
from naflow_fx.evaluation.faithfulness import (
    Probability,
    average_drop,
    blurred,
    insertion_deletion,
    max_sensitivity,
    road,
)
from naflow_fx.evaluation.fidelity import activations, fidelity
from naflow_fx.evaluation.metrics import DEFAULT, METRICS
from naflow_fx.evaluation.result import Evaluation, Scores
from naflow_fx.explainer import Explainer
from naflow_fx.flow.data import probabilities
from naflow_fx.selection import matching

Metrics = Sequence[str] | Mapping[str, Sequence[str] | None]
Progress = Callable[[str], None]
AREAS = ("insertion", "deletion", "i_d")
DROPS = ("drop", "increase")


@dataclass(frozen=True)
class Effort:
    """How much work the metrics that call the network again may make.

    Attributes:
        batch: images a call of an explainer, and of the network.
        steps: of insertion and deletion.
        percentiles: of the pixels that ROAD removes.
        draws: of noise, for max-sensitivity.
        radius: of that noise, in units of the network's input.
    """

    batch: int = 8
    steps: int = 8
    percentiles: tuple[int, ...] = (20, 50, 80)
    draws: int = 3
    radius: float = 0.02


def evaluate(
    explainers: Mapping[str, Explain],
    dataset: EvaluationSet,
    metrics: Metrics = DEFAULT,
    *,
    model: nn.Module | None = None,
    depth: Mapping[str, float] | None = None,
    effort: Effort | None = None,
    progress: Progress = lambda text: None,
) -> Evaluation:
    """How good the explainers' maps are, at each layer, on images with known evidence.

    Args:
        explainers: name -> explainer of `nf.compile`, or any callable of (images, int64 target)
            that gives maps: an AttentionFlow, a mapping layer -> [N, h, w], or one tensor
            [N, h, w] (its layer is then called "input").
        dataset: images, classes, evidence; of `photos`, `synthetic`, an adapter, or your own.
        metrics: names of `METRICS`; a mapping gives each the layers (names and globs) at which
            it is measured, None for all.  "fidelity" is of explainers that keep "bpfm" and "used".
        model: the network, for the metrics that classify changed images and for targets of -1.
            It is copied, and left as it is.
        depth: layer -> 0 to 1; None: the place among the layers of the explainer that has most.
        effort: how much work metrics may make; None: `Effort()`.
        progress: is told what is being measured.

    Raises:
        EvaluationError: an unknown metric, or one that lacks evidence, the model, or maps.
    """
    wanted = dict(metrics) if isinstance(metrics, Mapping) else dict.fromkeys(metrics)
    _check(explainers, dataset, wanted, model)
    probability = None if model is None else class_probability(model)
    dataset = replace(dataset, target=targets(dataset, probability))
    found: dict[str, dict[str, Scores]] = {}
    for name, explain in explainers.items():
        progress(name)
        figures = [m for m in wanted if METRICS[m].needs == "flow"]
        measure = Measurement(explain, dataset, probability, effort or Effort(), figures)
        found[name] = measure.all(wanted, lambda text, name=name: progress(f"{name}: {text}"))  # type: ignore[misc]
    places = dict(depth) if depth is not None else depths(found)
    share = None if dataset.evidence is None else dataset.share.double().numpy()
    groups = np.asarray(dataset.groups.tolist(), np.int64)
    return Evaluation(dataset.name, dataset.names, groups, places, found, share)


def class_probability(model: nn.Module) -> Probability:
    """Images -> class probabilities, by a copy of the model in eval mode, channels last."""
    # on CPU less than half of the time, as are small batches
    network = copy.deepcopy(model).eval().to(memory_format=torch.channels_last)

    def probability(images: Tensor) -> Tensor:
        laid = images.contiguous(memory_format=torch.channels_last)
        return probabilities(network(laid))

    return probability


class Measurement:
    """One explainer on one dataset: its maps, made once, and what is measured on them."""

    def __init__(
        self,
        explain: Explain,
        data: EvaluationSet,
        probability: Probability | None,
        effort: Effort,
        figures: Sequence[str],
    ) -> None:
        self.explain, self.data, self.effort = explain, data, effort
        self.probability, self.wanted = probability, figures
        parts = range(0, len(data), effort.batch)
        results = [self._explained(data[i : i + effort.batch]) for i in parts]
        self.maps = {k: torch.cat([r[0][k] for r in results]) for k in results[0][0]}
        self.figures = {
            name: {k: torch.cat([r[1][name][k] for r in results]) for k in results[0][1][name]}
            for name in results[0][1]
        }
        self._base: Tensor | None = None

    def all(self, wanted: Mapping[str, Any], progress: Progress) -> dict[str, Scores]:
        """Metric -> its scores at the layers that are wanted for it; what is absent is left out."""
        scores: dict[str, Scores] = {}
        for metric, globs in wanted.items():
            if metric in scores:
                continue  # measured together with another one
            layers = list(self.maps) if globs is None else matching(self.maps, globs)[0]
            if METRICS[metric].needs == "flow":
                layers = [k for k in layers if k in self.figures.get(metric, {})]
            if layers:
                progress(metric)
                together = [m for m in _together(metric) if m in wanted]
                scores |= self._scores(metric, together, layers)
        return {m: scores[m] for m in wanted if m in scores}

    def _scores(self, metric: str, together: list[str], layers: list[str]) -> dict[str, Scores]:
        """Scores of a metric, and of those that come with it."""
        needs = METRICS[metric].needs
        if needs == "explainer":
            rows = [{metric: row} for row in self._sensitivity(layers)]
        else:
            rows = [self._of_layer(metric, layer) for layer in layers]
        made = {m: np.stack([row[m].double().cpu().numpy() for row in rows]) for m in together}
        return {m: Scores(tuple(layers), values) for m, values in made.items()}

    def _of_layer(self, metric: str, layer: str) -> dict[str, Tensor]:
        """Values [N] of a metric, and of those that come with it, at one layer."""
        maps, function = self.maps[layer], METRICS[metric].function
        if METRICS[metric].needs == "flow":
            return {metric: self.figures[metric][layer]}
        if METRICS[metric].needs == "evidence":
            assert function is not None and self.data.evidence is not None
            return {metric: function(maps, self.data.evidence)}
        if METRICS[metric].needs == "map":
            assert function is not None
            return {metric: function(maps)}
        return self._by_model(metric, maps)

    def _by_model(self, metric: str, maps: Tensor) -> dict[str, Tensor]:
        """Values of the metrics that classify changed images."""
        assert self.probability is not None
        given = (self.probability, self.data.images, self.data.target, maps)
        batch = self.effort.batch
        if metric in AREAS:
            if self._base is None:
                self._base = blurred(self.data.images)
            return insertion_deletion(*given, self.effort.steps, self._base, batch)
        if metric in DROPS:
            return average_drop(*given, batch=batch)
        return {metric: road(*given, self.effort.percentiles, batch=batch)}

    def _sensitivity(self, layers: list[str]) -> list[Tensor]:
        """Max-sensitivity at each layer, [N] each."""
        parts = []
        for start in range(0, len(self.data), self.effort.batch):
            part = self.data[start : start + self.effort.batch]
            before = {k: self.maps[k][start : start + self.effort.batch] for k in layers}
            given = (part.images, part.target, before, self.effort.radius, self.effort.draws)
            parts.append(max_sensitivity(self._remade, *given, seed=start))
        return [torch.cat([part[layer] for part in parts]) for layer in layers]

    def _remade(self, images: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Maps of other images."""
        return as_maps(self.explain(images, target))

    def _explained(self, part: EvaluationSet) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Maps of some images, and the figures of the cascade if there are any."""
        result = self.explain(part.images, part.target)
        figures = {
            name: {k: v.detach().cpu() for k, v in found.items()}
            for name in self.wanted
            if (found := self._figure(name, result, part.images))
        }
        return as_maps(result), figures

    def _figure(self, name: str, result: Any, images: Tensor) -> dict[str, Tensor]:
        """Layer -> a figure of the cascade [N]; empty where there is no such."""
        if name != "fidelity":
            return getattr(result, name, {})
        if not isinstance(self.explain, Explainer) or not (result.bpfm and result.used):
            return {}
        return fidelity(result, activations(self.explain, images))


def as_maps(result: Any) -> dict[str, Tensor]:
    """What an explainer gave as layer -> [N, h, w]; EvaluationError if it is none of the kinds."""
    maps = {"input": result} if isinstance(result, Tensor) else getattr(result, "maps", result)
    fits = isinstance(maps, Mapping) and all(
        isinstance(m, Tensor) and m.ndim == 3 for m in maps.values()
    )
    if not fits or not maps:
        raise EvaluationError(
            "an explainer gave no maps; wanted an AttentionFlow, layers and their "
            f"maps [N, h, w], or one tensor; got {type(result).__name__}"
        )
    return {name: m.detach() for name, m in maps.items()}


def targets(dataset: EvaluationSet, probability: Probability | None) -> Tensor:
    """The dataset's classes, the predicted one in place of -1, int64 [N]."""
    if (dataset.target >= 0).all():
        return dataset.target
    if probability is None:
        raise EvaluationError(f"{dataset.name!r}: targets of -1 need model=, to predict them")
    with torch.no_grad():
        predicted = torch.cat([probability(x).argmax(1) for x in dataset.images.split(16)])  # type: ignore[no-untyped-call]
    return torch.where(dataset.target >= 0, dataset.target, predicted)


def depths(scores: Mapping[str, Mapping[str, Scores]]) -> dict[str, float]:
    """Each layer's place among those of the explainer that has most, 0 to 1; 0 elsewhere."""
    lists = [s.layers for of_method in scores.values() for s in of_method.values()]
    longest = max(lists, key=len, default=())
    others = dict.fromkeys((layer for layers in lists for layer in layers), 0.0)
    return others | depth_of(longest)


def depth_of(layers: Sequence[str]) -> dict[str, float]:
    """Layer -> place, 0 (first) to 1 (last)."""
    return {layer: i / max(len(layers) - 1, 1) for i, layer in enumerate(layers)}


def _together(metric: str) -> tuple[str, ...]:
    return next((group for group in (AREAS, DROPS) if metric in group), (metric,))


def _check(explainers: Any, dataset: Any, wanted: Any, model: Any) -> None:
    """EvaluationError: what is asked for can't be measured."""
    if not isinstance(explainers, Mapping) or not explainers or not wanted:
        raise EvaluationError("evaluate: wanted at least one explainer, as a mapping of names to "
                              "explainers, and one metric")  # fmt: skip
    if not isinstance(dataset, EvaluationSet):
        raise EvaluationError(
            f"evaluate: the dataset is a {type(dataset).__name__}; wanted a set of images with "
            "their classes and evidence: nf.EvaluationSet(images, target, evidence, names, groups)"
        )
    unknown = [name for name in wanted if name not in METRICS]
    if unknown:
        raise unfit(EvaluationError, "evaluate", one_of(METRICS), metrics=unknown)
    if any(METRICS[name].needs == "evidence" for name in wanted):
        dataset.located()
    lacking = [n for n in wanted if METRICS[n].needs == "model" and model is None]
    if lacking:
        raise EvaluationError(f"evaluate: {', '.join(lacking)} need model=, the network itself")
