"""The table of metrics that `nf.evaluate` knows: what each needs, and which way is better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from naflow_fx.evaluation.faithfulness import (
    average_drop,
    insertion_deletion,
    max_sensitivity,
    road,
)
from naflow_fx.evaluation.localisation import best_iou, energy, iou, pointing
from naflow_fx.flow import measures

Needs = Literal["evidence", "map", "flow", "model", "explainer"]
Direction = Literal["higher", "lower", ""]


@dataclass(frozen=True)
class Metric:
    """One figure per image and layer.

    Attributes:
        needs: what it is computed from: the "map" alone, the map and the "evidence", the
            "flow" (figures of the cascade), the "model" (images changed by the map), or the
            "explainer" itself (explained again).
        better: "higher" or "lower"; empty where neither is better as such.
        text: what it is, in a few words.
        function: of the maps and what else it asks for by parameter name: the `evidence`, a
            `classifier`, the `images` and their `target`, how to `explain` others, fields of an
            `Effort`.  It gives the figures [N], or those of several metrics by name; of the
            "explainer" it takes the maps of all layers, and gives each layer's.  None: the flow
            has them.
    """

    needs: Needs
    better: Direction
    text: str
    function: Callable[..., Any] | None = None


def entropy(maps: Tensor) -> Tensor:
    """Entropy of the map as a distribution over pixels, 0 to 1, [N] (Bhatt et al., IJCAI 2020).

    In units of a uniform map's, log(h w), so that layers of different size can be compared.  A map
    of zeros has none; here, where every photo counts, it counts as 1: it says nothing.
    """
    found = measures.entropy(torch.nan_to_num(maps.double(), 0.0, 0.0, 0.0))
    return torch.where(found.isnan(), 1.0, found)


def sparsity(maps: Tensor) -> Tensor:
    """Gini index of the map's values, 0 (uniform) to 1, [N] (Chalasani et al., ICML 2020)."""
    flat = torch.nan_to_num(maps.flatten(1).clamp_min(0).double(), 0.0, 0.0, 0.0)
    total = flat.sum(1, keepdim=True)
    shares = flat / torch.where(total > 0, total, 1.0)
    count = shares.shape[1]
    place = torch.arange(1, count + 1, device=shares.device, dtype=shares.dtype)
    gini = ((2 * place - count - 1) * shares.sort(1).values).sum(1) / count
    return torch.where(total[:, 0] > 0, gini, 0.0)


METRICS: dict[str, Metric] = {
    "energy": Metric("evidence", "higher", "share of the map inside the object's box", energy),
    "pointing": Metric("evidence", "higher", "the map's peak lies in the box", pointing),
    "iou": Metric("evidence", "higher", "IoU of the box and the map above a fifth of its peak",
                  iou),
    "best_iou": Metric("evidence", "higher", "IoU at each map's best threshold", best_iou),
    "insertion": Metric("model", "higher", "class probability while the map's first pixels return "
                        "to a blurred photo", insertion_deletion),
    "deletion": Metric("model", "lower", "class probability while they are blurred away",
                       insertion_deletion),
    "i_d": Metric("model", "higher", "insertion minus deletion", insertion_deletion),
    "drop": Metric("model", "lower", "relative loss of probability of the photo times the map",
                   average_drop),
    "increase": Metric("model", "higher", "share of photos whose probability rises so",
                       average_drop),
    "road": Metric("model", "higher", "probability lost without the first pixels minus without "
                   "the last, gaps filled in", road),
    "max_sensitivity": Metric("explainer", "lower", "largest relative change of the map under "
                              "slight noise", max_sensitivity),
    "entropy": Metric("map", "", "entropy of the map, 1: uniform", entropy),
    "sparsity": Metric("map", "", "Gini index of the map, 0: uniform", sparsity),
    "residual": Metric("flow", "lower", "relative residual of the inverse at the site"),
    "norm_ratio": Metric("flow", "", "norm of Z over the activation's"),
    "fidelity": Metric("flow", "higher", "cosine of Z and the activation over the neurons that "
                       "take part"),
}  # fmt: skip

DEFAULT = ("energy", "pointing", "iou", "best_iou", "insertion", "deletion", "i_d", "drop",
           "increase", "entropy", "sparsity", "residual")  # fmt: skip
