"""The table of metrics that `nf.evaluate` knows: what each needs, and which way is better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from naflow_fx.evaluation import complexity, localisation

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
        function: of maps, or of maps and evidence; the others are computed in groups, elsewhere.
    """

    needs: Needs
    better: Direction
    text: str
    function: Callable[..., Tensor] | None = None


METRICS: dict[str, Metric] = {
    "energy": Metric("evidence", "higher", "share of the map inside the object's box",
                     localisation.energy),
    "pointing": Metric("evidence", "higher", "the map's peak lies in the box",
                       localisation.pointing),
    "iou": Metric("evidence", "higher", "IoU of the box and the map above a fifth of its peak",
                  localisation.iou),
    "best_iou": Metric("evidence", "higher", "IoU at each map's best threshold",
                       localisation.best_iou),
    "insertion": Metric("model", "higher", "class probability while the map's first pixels return "
                        "to a blurred photo"),
    "deletion": Metric("model", "lower", "class probability while they are blurred away"),
    "i_d": Metric("model", "higher", "insertion minus deletion"),
    "drop": Metric("model", "lower", "relative loss of probability of the photo times the map"),
    "increase": Metric("model", "higher", "share of photos whose probability rises so"),
    "road": Metric("model", "higher", "probability lost without the first pixels minus without "
                   "the last, gaps filled in"),
    "max_sensitivity": Metric("explainer", "lower", "largest relative change of the map under "
                              "slight noise"),
    "entropy": Metric("map", "", "entropy of the map, 1: uniform", complexity.entropy),
    "sparsity": Metric("map", "", "Gini index of the map, 0: uniform", complexity.sparsity),
    "residual": Metric("flow", "lower", "relative residual of the inverse at the site"),
    "norm_ratio": Metric("flow", "", "norm of Z over the activation's"),
    "fidelity": Metric("flow", "higher", "cosine of Z and the activation over the neurons that "
                       "take part"),
}  # fmt: skip

LOCALISATION = ("energy", "pointing", "iou", "best_iou")
FAITHFULNESS = ("insertion", "deletion", "i_d", "drop", "increase")
DEFAULT = (*LOCALISATION, *FAITHFULNESS, "entropy", "sparsity", "residual")
