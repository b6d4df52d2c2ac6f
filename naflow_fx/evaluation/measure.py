"""`evaluate`: every metric, of every explainer, at every layer, for every image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from naflow_fx.errors import EvaluationError, check_positive, one_of, unfit
from naflow_fx.evaluation.data import EvaluationSet, Explain
from naflow_fx.evaluation.faithfulness import Classifier, Probability
from naflow_fx.evaluation.fidelity import activations, fidelity
from naflow_fx.evaluation.metrics import DEFAULT, METRICS
from naflow_fx.evaluation.modules import twin
from naflow_fx.evaluation.result import Evaluation, Scores
from naflow_fx.explainer import Explainer
from naflow_fx.flow.data import probabilities
from naflow_fx.selection import matching

Metrics = Sequence[str] | Mapping[str, Sequence[str] | None]
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Effort:
    """How much work the metrics that call the network again may make.

    Attributes:
        batch: images a call of an explainer, and of the network.
        steps: of insertion and deletion.
        percentiles: of the pixels that ROAD removes.
        draws: of noise, for max-sensitivity.
        radius: of that noise, in units of the network's input.

    Raises:
        EvaluationError: a number that must be a whole one of at least 1 is none; no percentiles.
    """

    batch: int = 8
    steps: int = 8
    percentiles: tuple[int, ...] = (20, 50, 80)
    draws: int = 3
    radius: float = 0.02

    def __post_init__(self) -> None:
        counts = {"batch": self.batch, "steps": self.steps, "draws": self.draws}
        check_positive(EvaluationError, "Effort", **counts)
        if not self.percentiles or not all(0 < p < 100 for p in self.percentiles):
            wanted = "numbers between 0 and 100, at least one"
            raise unfit(EvaluationError, "Effort", wanted, percentiles=self.percentiles)


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
        depth: layer -> 0 to 1; of others their place among the layers of the explainer that has
            most.
        effort: how much work metrics may make; None: `Effort()`.
        progress: is told what is being measured.

    Raises:
        EvaluationError: an unknown metric, or one that lacks evidence, the model, or maps.
    """
    wanted = dict(metrics) if isinstance(metrics, Mapping) else dict.fromkeys(metrics)
    _check(explainers, dataset, wanted, model)
    probability = None if model is None else class_probability(model)
    target, effort = targets(dataset, probability), effort or Effort()
    dataset = replace(dataset, target=target)
    given = vars(effort) | vars(dataset) | {"dataset": dataset}
    if probability is not None:
        given["classifier"] = Classifier(probability, dataset.images, target, effort.batch)
    found: dict[str, dict[str, Scores]] = {}
    for name, explain in explainers.items():
        progress(name)
        found[name] = _measured(name, explain, wanted, given, progress)
    known = dict(depth or {})
    places = known | depths(found) | known
    share = None if dataset.evidence is None else dataset.share.double().numpy()
    groups = np.asarray(dataset.groups.tolist(), np.int64)
    return Evaluation(dataset.name, dataset.names, groups, places, found, share)


def class_probability(model: nn.Module) -> Probability:
    """Images -> class probabilities, by a copy of the model in eval mode, channels last."""
    # on CPU less than half of the time, as are small batches
    network = twin(model).to(memory_format=torch.channels_last)

    def probability(images: Tensor) -> Tensor:
        laid = images.contiguous(memory_format=torch.channels_last)
        return probabilities(network(laid))

    return probability


def _measured(
    name: str, explain: Explain, wanted: dict[str, Any], given: dict[str, Any], progress: Progress
) -> dict[str, Scores]:
    """Metric -> its scores at the layers that are wanted for it; what is absent is left out.

    given: what metrics ask for by name, besides the maps and the explainer.
    """
    flow = [metric for metric in wanted if METRICS[metric].needs == "flow"]
    found, scores = explained(explain, given["dataset"], given["batch"], flow), {}
    maps, given = found["maps"], {**given, "explain": lambda *of: as_maps(explain(*of))}
    at_layer = cache(lambda function, layer: _asked(function, maps[layer], given))
    for metric, globs in wanted.items():
        there, needs = found.get(metric, maps), METRICS[metric].needs
        layers = [k for k in (maps if globs is None else matching(maps, globs)[0]) if k in there]
        if not layers:
            continue
        progress(f"{name}: {metric}")
        if needs == "flow":
            rows = [there[layer] for layer in layers]
        elif needs == "explainer":
            of_layers = {layer: maps[layer] for layer in layers}
            rows = list(_asked(METRICS[metric].function, of_layers, given).values())
        else:
            made = [at_layer(METRICS[metric].function, layer) for layer in layers]
            rows = [row[metric] if isinstance(row, dict) else row for row in made]
        values = np.stack([row.double().cpu().numpy() for row in rows])
        scores[metric] = Scores(tuple(layers), values)
    return scores


def _asked(function: Any, maps: Any, given: Mapping[str, Any]) -> Any:
    """The function of the maps, and of what else it asks for."""
    asked = {name: given[name] for name in signature(function).parameters if name in given}
    return function(maps=maps, **asked)


def explained(
    explain: Explain, data: EvaluationSet, batch: int, figures: Sequence[str] = ()
) -> dict[str, dict[str, Tensor]]:
    """All images' maps by layer under "maps", and each figure of the cascade, [N] by layer."""
    parts = []
    for start in range(0, len(data), batch):
        part = data[start : start + batch]
        result = explain(part.images, part.target)
        of_cascade = {name: _figure(name, explain, result, part.images) for name in figures}
        parts.append({"maps": as_maps(result), **of_cascade})
    return {name: {layer: torch.cat([part[name][layer] for part in parts]) for layer in found}
            for name, found in parts[0].items()}  # fmt: skip


def _figure(name: str, explain: Explain, result: Any, images: Tensor) -> dict[str, Tensor]:
    """Layer -> a figure of the cascade [N]; empty where there is no such."""
    found = getattr(result, name, {})
    if name == "fidelity" and isinstance(explain, Explainer) and result.bpfm and result.used:
        found = fidelity(result, activations(explain, images))
    return {layer: values.detach().cpu() for layer, values in found.items()}


def as_maps(result: Any) -> dict[str, Tensor]:
    """What an explainer gave as layer -> [N, h, w]; EvaluationError if it is none of the kinds."""
    maps = {"input": result} if isinstance(result, Tensor) else getattr(result, "maps", result)
    every = maps.values() if isinstance(maps, Mapping) else ()
    if not every or not all(isinstance(m, Tensor) and m.ndim == 3 for m in every):
        raise EvaluationError(
            "an explainer gave no maps; wanted an AttentionFlow, layers and "
            f"their maps [N, h, w], or one tensor; got {type(result).__name__}"
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
