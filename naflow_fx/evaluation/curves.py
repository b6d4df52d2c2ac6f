"""Depth curves of an evaluation as a picture, with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from naflow_fx.errors import EvaluationError, required
from naflow_fx.evaluation.bootstrap import Estimate, estimate
from naflow_fx.evaluation.measured import Measured
from naflow_fx.evaluation.metrics import METRICS
from naflow_fx.files import replacing

MANY, BINS = 20, 10  # layers; with more, means over tenths of the depth are drawn
OURS = ("#b2182b", "#f4a582", "#7b3294", "#e6b3ba", "#cdb5dc")
OTHERS = ("#2166ac", "#67a9cf", "#1b7837", "#7fbf7b", "#666666", "#a6761d", "#111111", "#999999",
          "#00a0a0")  # fmt: skip
WIDTH, HEIGHT, LINE = 4.6, 3.1, 0.2  # of a panel, and of the legend's lines, in inches
TITLES = {"energy": "energy in the box", "pointing": "pointing game",
          "i_d": "insertion minus deletion", "iou": "IoU", "best_iou": "best IoU"}  # fmt: skip


def plot(result: Measured, path: str | Path, metrics: Sequence[str] | None = None) -> Path:
    """Writes one panel per metric: its mean over images against the depth, a line per method.

    NAFlow's lines are thick, the first one with its 95 % intervals; the dotted line is the
    evidence's share, what a map without content gets.  Methods of the input alone are left out.
    The format is that of the path's ending.

    Raises:
        EvaluationError: matplotlib is missing, or there is no such metric.
    """
    drawing = required("matplotlib.figure", extra="viz", what="a figure", error=EvaluationError)
    wanted = list(metrics or result.metrics)
    columns = 2 if len(wanted) == 4 else min(len(wanted), 3)
    rows, beside = -(-len(wanted) // columns), 2 * columns
    legend = LINE * (1 + -(-len(result.methods) // beside))
    size = (WIDTH * columns, HEIGHT * rows + legend)
    figure = drawing.Figure(figsize=size)  # without pyplot, whose backend is the user's
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis, metric in zip(axes.flat, wanted, strict=False):
        _panel(axis, result, metric)
    for axis in axes.flat[len(wanted) :]:
        axis.axis("off")
    handles = {
        h.get_label(): h for a in axes.flat for h in a.get_lines() if h.get_label()[0] != "_"
    }
    figure.legend(handles.values(), handles, loc="lower center", ncols=beside, frameon=False,
                  fontsize=9)  # fmt: skip
    figure.tight_layout(rect=(0, legend / size[1], 1, 1))
    path = Path(path)
    with replacing(path) as draft:
        told = {"Software": None} if path.suffix == ".png" else None
        figure.savefig(draft, dpi=110, metadata=told)
    return path


def points(result: Measured, method: str, metric: str) -> list[tuple[float, Estimate]]:
    """(depth, mean over images) of each layer, or of each tenth of the depth."""
    found = result.scores[method][metric]
    depth = np.array([result.depth[layer] for layer in found.layers])
    if len(depth) <= MANY:
        places = [(float(d), [i]) for i, d in enumerate(depth)]
    else:
        bins = np.minimum((depth * BINS).astype(int), BINS - 1)
        places = [((b + 0.5) / BINS, np.flatnonzero(bins == b).tolist()) for b in range(BINS)]
    return [(d, estimate(found.values[i].mean(0), result.groups)) for d, i in places if i]


def _panel(axis: Any, result: Measured, metric: str) -> None:
    """One metric's curves."""
    ours = [m for m in result.methods if m.lower().startswith("naflow")]
    others = [m for m in result.methods if m not in ours]
    for group, colours, wide in ((others, OTHERS, False), (ours, OURS, True)):
        for i, method in enumerate(group):
            if metric in result.scores[method] and result.has_depth(method, metric):
                _line(axis, points(result, method, metric), method, colours[i % len(colours)], wide,
                      band=wide and method == ours[0])  # fmt: skip
    if metric == "energy" and result.share is not None:
        axis.axhline(result.share.mean(), color="#888888", lw=1, ls=":")
    better, title = METRICS[metric].better, TITLES.get(metric, metric.replace("_", " "))
    axis.set_title(f"{title}, {better} is better" if better else title, fontsize=10, loc="left")
    axis.set_xlabel("depth: first call site (0) to last (1)", fontsize=8)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", alpha=0.25)
    axis.set_xlim(-0.02, 1.02)


def _line(
    axis: Any, curve: list[tuple[float, Estimate]], name: str, colour: str, wide: bool, band: bool
) -> None:
    """One method; a single point where it has one layer."""
    x, means = [d for d, _ in curve], [e.mean for _, e in curve]
    look = {"lw": 2.2, "zorder": 3} if wide else {"lw": 1.3, "zorder": 2}
    axis.plot(x, means, color=colour, label=name, marker="o", ms=4 if wide else 3, **look)
    if band:
        axis.fill_between(x, [e.low for _, e in curve], [e.high for _, e in curve],
                          color=colour, alpha=0.10, lw=0)  # fmt: skip
