"""Evaluation: what `nf.evaluate` gives, figures per method, metric, layer and image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naflow_fx.errors import EvaluationError, check_choice, required, table
from naflow_fx.evaluation.bootstrap import Array, Estimate, estimate
from naflow_fx.evaluation.metrics import METRICS
from naflow_fx.files import replacing, write

FIFTHS = 5
INPUT = "input"  # the layer of methods that have none
ARROWS = {"higher": " ↑", "lower": " ↓", "": ""}
MANY, BINS = 20, 10  # layers; with more, means over tenths of the depth are drawn
OURS = ("#b2182b", "#f4a582", "#7b3294", "#e6b3ba", "#cdb5dc")
OTHERS = ("#2166ac", "#67a9cf", "#1b7837", "#7fbf7b", "#666666", "#a6761d", "#111111", "#999999",
          "#00a0a0")  # fmt: skip
WIDTH, HEIGHT, LINE = 4.6, 3.1, 0.2  # of a panel, and of the legend's lines, in inches
TITLES = {"energy": "energy in the box", "pointing": "pointing game",
          "i_d": "insertion minus deletion", "iou": "IoU", "best_iou": "best IoU"}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Scores:
    """One metric of one method: values [L, N] of its layers, in forward order."""

    layers: tuple[str, ...]
    values: Array


@dataclass(frozen=True, eq=False)
class Evaluation:
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
        wanted = self._wanted(metrics)
        head = ["method", *(f"{m}{ARROWS[METRICS[m].better]}" for m in wanted)]
        body = [[name, *(str(self.mean(name, m)) if m in self.scores[name] else "" for m in wanted)]
                for name in self.scores]  # fmt: skip
        return [head, *body]

    def fifths(self, metric: str) -> list[list[str]]:
        """A table as text: each method's mean in each fifth of the depth, first to last."""
        self._wanted([metric])
        head = [metric, *(f"{i * 20} to {i * 20 + 20} %" for i in range(FIFTHS)), "all"]
        body = []
        for name in (name for name in self.scores if metric in self.scores[name]):
            deep = self.has_depth(name, metric)
            means = [self.values(name, metric, i).mean() if deep or i is None else np.nan
                     for i in (*range(FIFTHS), None)]  # fmt: skip
            body.append([name, *("" if np.isnan(mean) else f"{mean:.3f}" for mean in means)])
        return [head, *body]

    def __str__(self) -> str:
        """The table, aligned for a terminal."""
        return table(self.rows(), indent="")

    def merged(self, other: Evaluation) -> Evaluation:
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

    @staticmethod
    def from_json(given: dict[str, Any]) -> Evaluation:
        """The result that `to_json` wrote."""
        scores = {
            method: {m: Scores(tuple(s["layers"]), np.asarray(s["values"], float))
                     for m, s in of_method.items()}
            for method, of_method in given["scores"].items()
        }  # fmt: skip
        share = None if given["share"] is None else np.asarray(given["share"], float)
        return Evaluation(given["dataset"], tuple(given["images"]),
                          np.asarray(given["groups"], np.int64), dict(given["depth"]), scores,
                          share, dict(given["facts"]))  # fmt: skip

    def save(self, path: str | Path) -> Path:
        """Writes the JSON."""
        return write(Path(path), json.dumps(self.to_json(), separators=(",", ":")) + "\n")

    def plot(self, path: str | Path, metrics: Sequence[str] | None = None) -> Path:
        """Writes one panel per metric: its mean over images against the depth, a line per method.

        NAFlow's lines are thick, the first one with its 95 % intervals; the dotted line is the
        evidence's share, what a map without content gets.  Methods of the input alone are left out.
        The format is that of the path's ending.

        Raises:
            EvaluationError: matplotlib is missing, no such metric, or nothing was measured.
        """
        wanted = self._wanted(metrics)
        if not wanted:
            raise EvaluationError(f"{self.dataset}: nothing was measured, nothing can be drawn")
        drawing = required("matplotlib.figure", extra="viz", what="a figure", error=EvaluationError)
        columns = 2 if len(wanted) == 4 else min(len(wanted), 3)
        rows, beside = -(-len(wanted) // columns), 2 * columns
        legend = LINE * (1 + -(-len(self.methods) // beside))
        size = (WIDTH * columns, HEIGHT * rows + legend)
        figure = drawing.Figure(figsize=size)  # without pyplot, whose backend is the user's
        axes = figure.subplots(rows, columns, squeeze=False)
        for axis, metric in zip(axes.flat, wanted, strict=False):
            _panel(axis, self, metric)
        for axis in axes.flat[len(wanted) :]:
            axis.axis("off")
        lines = {line.get_label(): line for axis in axes.flat
                 for line in axis.get_legend_handles_labels()[0]}  # fmt: skip
        figure.legend(lines.values(), lines, loc="lower center", ncols=beside, frameon=False,
                      fontsize=9)  # fmt: skip
        figure.tight_layout(rect=(0, legend / size[1], 1, 1))
        path = Path(path)
        with replacing(path) as draft:
            told = {"Software": None} if path.suffix == ".png" else None
            figure.savefig(draft, dpi=110, metadata=told)
        return path

    def _wanted(self, metrics: Sequence[str] | None) -> list[str]:
        """The metrics that are asked for, or all; EvaluationError for a name that is none."""
        given = [metrics] if isinstance(metrics, str) else metrics or self.metrics
        for name in given:
            check_choice(EvaluationError, "Evaluation", METRICS, metric=name)
        return list(given)

    def _scores(self, method: str, metric: str) -> Scores:
        try:
            return self.scores[method][metric]
        except KeyError:
            have = ", ".join(f"{n} ({', '.join(m)})" for n, m in self.scores.items())
            raise EvaluationError(f"no {metric!r} of {method!r}; there are: {have}") from None


def points(result: Evaluation, method: str, metric: str) -> list[tuple[float, Estimate]]:
    """(depth, mean over images) of each layer, or of each tenth of the depth."""
    found = result.scores[method][metric]
    depth = np.array([result.depth[layer] for layer in found.layers])
    if len(depth) <= MANY:
        places = [(float(d), [i]) for i, d in enumerate(depth)]
    else:
        bins = np.minimum((depth * BINS).astype(int), BINS - 1)
        places = [((b + 0.5) / BINS, np.flatnonzero(bins == b).tolist()) for b in range(BINS)]
    return [(d, estimate(found.values[i].mean(0), result.groups)) for d, i in places if i]


def _panel(axis: Any, result: Evaluation, metric: str) -> None:
    """One metric's curves; a single point where a method has one layer."""
    ours = [m for m in result.methods if m.lower().startswith("naflow")]
    others = [m for m in result.methods if m not in ours]
    thin, thick = {"lw": 1.3, "ms": 3, "zorder": 2}, {"lw": 2.2, "ms": 4, "zorder": 3}
    for group, colours, look in ((others, OTHERS, thin), (ours, OURS, thick)):
        for method, colour in zip(group, cycle(colours), strict=False):
            if metric not in result.scores[method] or not result.has_depth(method, metric):
                continue
            depth, found = zip(*points(result, method, metric), strict=True)
            means = [e.mean for e in found]
            axis.plot(depth, means, color=colour, label=method, marker="o", **look)
            if method in ours[:1]:
                axis.fill_between(depth, [e.low for e in found], [e.high for e in found],
                                  color=colour, alpha=0.10, lw=0)  # fmt: skip
    if metric == "energy" and result.share is not None:
        axis.axhline(result.share.mean(), color="#888888", lw=1, ls=":")
    better, title = METRICS[metric].better, TITLES.get(metric, metric.replace("_", " "))
    axis.set_title(f"{title}, {better} is better" if better else title, fontsize=10, loc="left")
    axis.set_xlabel("depth: first call site (0) to last (1)", fontsize=8)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", alpha=0.25)
    axis.set_xlim(-0.02, 1.02)
