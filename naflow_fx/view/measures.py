"""Numbers along depth: what maps say, how far an inverse goes, how many neurons take part."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor

from naflow_fx.flow.statistics import measured

if TYPE_CHECKING:
    from naflow_fx.flow.data import FlowData


def along_depth(flow: FlowData) -> dict[str, dict[str, list[float | None]]]:
    """Measure -> call site -> one number an image, None where there is none.

    "spread", "scatter" and "agreement" of the maps (docs/statistics.md), "residual",
    "norm_ratio", "sigma_max", and "abandoned" (the share of neurons that don't reach the feature
    node) of a flow that was made with ``keep=("used",)``.
    """
    found = {
        **measured(flow.maps),
        "residual": flow.residual,
        "norm_ratio": flow.norm_ratio,
        "sigma_max": flow.sigma_max,
        "abandoned": getattr(flow, "abandoned", {}),
    }
    return {
        measure: {name: _numbers(values[name]) for name in flow.maps if name in values}
        for measure, values in found.items()
    }


def _numbers(values: Tensor) -> list[float | None]:
    """[N] as numbers that JSON can hold."""
    plain = values.detach().double().cpu().tolist()
    return [value if math.isfinite(value) else None for value in plain]
