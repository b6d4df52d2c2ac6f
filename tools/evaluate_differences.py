"""Paired differences of methods as Markdown, what is surely better or worse marked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from naflow_fx.evaluation.bootstrap import Estimate
from naflow_fx.evaluation.metrics import METRICS
from naflow_fx.evaluation.report import markdown
from naflow_fx.evaluation.result import FIFTHS, Evaluation


def differences(result: Evaluation, method: str, others: Sequence[str], metric: str) -> str:
    """Method minus each other one, in each fifth of the depth and overall, with intervals.

    A difference whose interval lies wholly on the better side of 0 is bold; one wholly on the
    worse side has a †.
    """
    head = [f"{metric}: {method} minus", *(f"{20 * i} to {20 * i + 20} %" for i in range(FIFTHS))]
    rows = [[*head, "all"]]
    for other in others:
        cells = []
        for fifth in (*range(FIFTHS), None):
            there = not np.isnan(result.values(method, metric, fifth)).any()
            cells.append(marked(result.difference(method, other, metric, fifth), metric)
                         if there else "")  # fmt: skip
        rows.append([other, *cells])
    return markdown(rows)


def marked(found: Estimate, metric: str) -> str:
    """A difference with its interval: bold, or with a †, where it is surely better or worse."""
    text = f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
    if not METRICS[metric].better:
        return text
    sign = -1 if METRICS[metric].better == "lower" else 1
    if min(sign * found.low, sign * found.high) > 0:
        return f"**{text}**"
    return f"{text} †" if max(sign * found.low, sign * found.high) < 0 else text
