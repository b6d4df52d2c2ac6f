"""Figures of flows: all maps of an image, a strip along depth, curves along depth (matplotlib)."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from naflow_fx.errors import FlowError, check_choice, required
from naflow_fx.flow.data import FlowData
from naflow_fx.selection import choose, evenly
from naflow_fx.view.photos import Style, known_photos, pictures
from naflow_fx.view.record import along_depth, shape_text

required("matplotlib", extra="viz", what="a figure", error=FlowError)
from matplotlib.figure import Figure  # noqa: E402

Kind = Literal["grid", "strip", "depth"]
STRIP, CELL = 8, 1.35  # layers of a strip; inches of a picture
#: Safe for the colour-blind (Okabe and Ito), readable on white.
LINES = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#444444")
MEASURES = {
    "spread": "spread: entropy of the map",
    "scatter": "scatter: share outside of the largest part",
    "agreement": "agreement with the last map",
    "residual": "residual of the inverse",
    "abandoned": "abandoned neurons",
}


class FlowFigure(Figure):
    """A matplotlib figure that notebooks show without pyplot, which would keep it in memory."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()


def plot(flow: FlowData, images: Any, kind: Kind, title: str | None, style: Style) -> FlowFigure:
    """What `AttentionFlow.plot` documents."""
    check_choice(FlowError, "plot", get_args(Kind), kind=kind)
    if kind == "depth":
        return _curves(flow, choose(list(flow.maps), style.layers), title)
    if kind == "grid" and len(flow) != 1:
        raise FlowError(
            f'A "grid" shows one image, not {len(flow)}; flow[0].plot(...), or "strip".'
        )
    if kind == "strip" and style.layers is None:
        style = replace(style, layers=evenly(list(flow.maps), STRIP))
    photos = known_photos(flow, images)
    made = dict(pictures(flow, photos, style))
    labels = [f"{name}\n{shape_text(flow.maps[name])}" for name in made]
    columns: list[Sequence[Any]] = list(made.values())
    if any(photo is not None for photo in photos):
        labels, columns = ["photo", *labels], [photos, *columns]
    rows, wide = zip(*columns, strict=True), len(columns)
    if kind == "grid":
        wide = min(wide, math.ceil(math.sqrt(wide * 4 / 3)))  # about 4:3
    return _sheet([one for row in rows for one in row], labels, wide, title)


def _sheet(
    made: Sequence[NDArray[np.uint8]], labels: Sequence[str], columns: int, title: str | None
) -> FlowFigure:
    """Pictures row by row; each has the label of its place, modulo the labels' number."""
    rows = math.ceil(len(made) / columns)
    figure = FlowFigure(figsize=(columns * CELL + 0.2, rows * (CELL + 0.32) + 0.3 * bool(title)),
                        layout="constrained", dpi=150)  # fmt: skip
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for index, one in enumerate(axes):
        one.set_axis_off()
        if index < len(made):
            one.imshow(made[index], interpolation="antialiased")
            one.set_title(_broken(labels[index % len(labels)]), fontsize=6, pad=3)
    figure.suptitle(title or "", fontsize=10)
    return figure


def _broken(label: str) -> str:
    """A label whose lines of over 24 letters are broken at dots: names stay over their picture."""
    return re.sub(r"(?=.{25})(.{1,23}\.)", r"\1\n", label)


def _curves(flow: FlowData, names: Sequence[str], title: str | None) -> FlowFigure:
    """One axis a measure that is known, one line an image, x the layers in order."""
    measured = along_depth(flow)
    known = [m for m in MEASURES if any(measured[m].get(name) for name in names)]
    figure = FlowFigure(figsize=(8, 1.7 * len(known) + 0.9), layout="constrained", dpi=150)
    axes = figure.subplots(len(known), 1, sharex=True, squeeze=False)[:, 0]
    for one, measure in zip(axes, known, strict=True):
        values = [measured[measure].get(name, [None] * len(flow)) for name in names]
        one.set_prop_cycle(color=LINES)
        one.plot(np.array(values, float), linewidth=1.2)
        low, high = one.get_ylim()
        one.set_ylim(min(0.0, low), max(1.0, high))
        one.tick_params(labelsize=7)
        one.spines[["top", "right"]].set_visible(False)
        one.grid(axis="y", color="#dddddd", linewidth=0.6)
        one.set_title(MEASURES[measure], fontsize=9, loc="left")
    ticks = evenly(list(names), 16)
    places = [list(names).index(name) for name in ticks]
    axes[-1].set_xticks(places, ticks, rotation=60, fontsize=6, ha="right", rotation_mode="anchor")
    if len(flow) > 1:
        axes[0].legend([f"image {i}" for i in range(len(flow))], fontsize=7, ncols=4, frameon=False)
    figure.suptitle(title or "", fontsize=10)
    return figure
