"""Sanity checks: do the maps depend on the weights, on the labels, and on the class?

Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018.  Maps are compared by Spearman's
rank correlation over pixels, at the layer's own size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from naflow_fx.evaluation.bootstrap import Array, Estimate, estimate
from naflow_fx.evaluation.data import EvaluationSet, Explain
from naflow_fx.evaluation.localisation import energy
from naflow_fx.evaluation.measure import class_probability, explained, targets
from naflow_fx.evaluation.modules import twin
from naflow_fx.flow import measures

Maps = dict[str, Tensor]
Make = Callable[[nn.Module], Explain]
STAGES = (0.25, 0.5, 0.75, 1.0)
BATCH = 8  # images a call of an explainer
TITLE = "Rank correlation of maps with those of random weights, another class, random labels"


@dataclass(frozen=True, eq=False)
class Sanity:
    """How alike maps stay while something is changed that they should depend on.

    Attributes:
        stages: what was changed, from little to all.
        layers: names of the call sites.
        similarity: rank correlation with the maps before, [stages, layers, N].
        energy: share of the maps inside of the evidence, before (first row) and at each stage,
            [1 + stages, layers, N]; empty where the evidence is not known.
        groups: int64 [N], for the bootstrap.
    """

    stages: tuple[str, ...]
    layers: tuple[str, ...]
    similarity: Array
    energy: Array
    groups: NDArray[np.int64]

    def similarities(self) -> list[Estimate]:
        """Each stage's mean over layers and images, with its interval."""
        return [estimate(row.mean(0), self.groups) for row in self.similarity]

    def energies(self) -> list[Estimate]:
        """The mean energy before, and at each stage."""
        return [estimate(row.mean(0), self.groups) for row in self.energy]


def spearman(first: Tensor, second: Tensor) -> Tensor:
    """Rank correlation over pixels of maps [N, h, w], [N]; 0 where a map is constant."""
    return measures.spearman(first, second).nan_to_num(0.0)


def randomised(model: nn.Module, share: float, seed: int = 0) -> nn.Module:
    """A copy whose last `share` of the weighted layers have their weights in random order.

    Layers count from the output.  The values stay, so that activations keep their size; batch
    norms are left alone.
    """
    changed = twin(model)
    kinds = (nn.modules.conv._ConvNd, nn.Linear)
    weighted = [m for m in changed.modules() if isinstance(m, kinds)]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in weighted[len(weighted) - round(share * len(weighted)) :]:
            for tensor in (module.weight, module.bias):
                if tensor is not None:
                    order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
                    tensor.copy_(tensor.flatten()[order].reshape(tensor.shape))
    return changed


def cascading(
    make: Make,
    model: nn.Module,
    dataset: EvaluationSet,
    shares: tuple[float, ...] = STAGES,
    seed: int = 0,
) -> Sanity:
    """Maps of networks whose weights are randomised from the output down, against the network's.

    Args:
        make: an explainer of a model, `lambda m: nf.compile(m, example)`.
        model: the trained network.
        dataset: images, classes, and the evidence if it is known.
        shares: of the layers that are randomised, one stage each.
        seed: of the order of the weights.
    """  # fmt: skip
    networks = {f"{share:.0%}": randomised(model, share, seed) for share in shares}
    return compared(make, model, networks, dataset)


def compared(
    make: Make, model: nn.Module, others: Mapping[str, nn.Module], dataset: EvaluationSet
) -> Sanity:
    """Maps of other networks of the same layers against the network's, for the same classes."""
    after = {name: _maps(make(other), dataset) for name, other in others.items()}
    return _alike(_maps(make(model), dataset), after, dataset)


def by_class(explain: Explain, dataset: EvaluationSet, classes: int, seed: int = 0) -> Sanity:
    """Maps of another class, drawn at random, against those of the dataset's classes."""
    generator = torch.Generator().manual_seed(seed)
    step = torch.randint(1, classes, dataset.target.shape, generator=generator)
    other = replace(dataset, target=(dataset.target + step.to(dataset.target)) % classes)
    return _alike(_maps(explain, dataset), {"another class": _maps(explain, other)}, dataset)


def rows(
    methods: Sequence[str],
    explain: Callable[[str, nn.Module], Explain],
    model: nn.Module,
    dataset: EvaluationSet,
    others: Mapping[str, nn.Module],
) -> list[list[str]]:
    """How alike each method's maps stay in all checks, as a table as text, its first row the head.

    Args:
        methods: names.
        explain: (name, network) -> explainer.
        model: the trained network.
        dataset: images, classes.
        others: networks of the same layers to compare with, such as one of random labels.
    """
    dataset = replace(dataset, target=targets(dataset, class_probability(model)))
    with torch.no_grad():
        classes = model(dataset.images[:1]).shape[1]
    weights = [f"{share:.0%} of weights" for share in STAGES]
    found = [["method", *weights, "another class", *others]]
    for name in methods:
        make = partial(explain, name)
        checks = [cascading(make, model, dataset), by_class(make(model), dataset, classes)]
        checks += [compared(make, model, others, dataset)] if others else []
        found.append([name, *(str(e) for check in checks for e in check.similarities())])
    return found


def _maps(explain: Explain, dataset: EvaluationSet) -> Maps:
    return explained(explain, dataset, BATCH)["maps"]


def _alike(before: Maps, after: Mapping[str, Maps], dataset: EvaluationSet) -> Sanity:
    """Maps at each stage against those before."""
    evidence = dataset.evidence
    similar = [[spearman(before[k], maps[k]) for k in before] for maps in after.values()]
    inside = [[] if evidence is None else [energy(m, evidence) for m in maps.values()]
              for maps in (before, *after.values())]  # fmt: skip
    return Sanity(tuple(after), tuple(before), _array(similar), _array(inside),
                  np.asarray(dataset.groups, np.int64))  # fmt: skip


def _array(rows: list[list[Tensor]]) -> Array:
    """Nested lists of figures as one array [rows, layers, N]."""
    return np.asarray([[values.double().cpu().numpy() for values in row] for row in rows])
