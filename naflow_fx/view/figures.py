"""Figures of flows: all maps of an image, a strip along depth, curves along depth (matplotlib)."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from naflow_fx.errors import FlowError, one_of, required, unfit
from naflow_fx.selection import choose, evenly
from naflow_fx.view.colours import drawn
from naflow_fx.view.photos import as_photos
from naflow_fx.view.record import along_depth, shape_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from naflow_fx.flow.data import FlowData

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


def plot(
    flow: FlowData,
    images: Any,
    kind: Kind,
    layers: Sequence[str] | None,
    alpha: float,
    colormap: str,
    title: str | None,
) -> FlowFigure:
    """What `AttentionFlow.plot` documents."""
    if kind not in get_args(Kind):
        raise unfit(FlowError, "plot", one_of(get_args(Kind)), kind=kind)
    if kind == "depth":
        return _curves(flow, choose(list(flow.maps), layers), title)
    if kind == "grid" and len(flow) != 1:
        raise FlowError(
            f'A "grid" shows one image, not {len(flow)}; flow[0].plot(...), or "strip".'
        )
    names = choose(list(flow.maps), layers)
    if kind == "strip" and layers is None:
        names = evenly(names, STRIP)
    rows = pictures(flow, images, names, alpha, colormap)
    labels = [f"{name}\n{shape_text(flow.maps[name])}" for name in names]
    if images is not None:
        labels = ["photo", *labels]
    columns = len(labels) if kind == "strip" else min(len(labels), _columns(len(labels)))
    return _sheet([one for row in rows for one in row], labels, columns, title)


def pictures(
    flow: FlowData, images: Any, names: Sequence[str], alpha: float, colormap: str
) -> list[list[NDArray[np.uint8]]]:
    """For every image its photo (if given) and its maps' pictures, RGB uint8 [H, W, 3]."""
    maps = flow.drawable("map")
    photos = [None] * len(flow) if images is None else as_photos(images, len(flow))
    return [
        [
            *([] if photo is None else [photo]),
            *(drawn(photo, maps[n][i], flow.input_size, alpha, colormap) for n in names),
        ]
        for i, photo in enumerate(photos)
    ]


def _columns(count: int) -> int:
    """Columns of a sheet about 4:3."""
    return max(1, math.ceil(math.sqrt(count * 4 / 3)))


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


def _broken(label: str, width: int = 24) -> str:
    """A label whose lines are broken at dots, so that long names stay over their picture."""
    lines = []
    for line in label.split("\n"):
        while len(line) > width and "." in line[1:width]:
            cut = line.rindex(".", 1, width) + 1
            lines.append(line[:cut])
            line = line[cut:]
        lines.append(line)
    return "\n".join(lines)


def _curves(flow: FlowData, names: Sequence[str], title: str | None) -> FlowFigure:
    """One axis a measure that is known, one line an image, x the layers in order."""
    measured = along_depth(flow)
    known = [m for m in MEASURES if any(measured[m].get(name) for name in names)]
    figure = FlowFigure(figsize=(8, 1.7 * len(known) + 0.9), layout="constrained", dpi=150)
    axes = figure.subplots(len(known), 1, sharex=True, squeeze=False)[:, 0]
    for one, measure in zip(axes, known, strict=True):
        _curve(one, measured[measure], names, len(flow))
        one.set_title(MEASURES[measure], fontsize=9, loc="left")
    ticks = evenly(list(names), 16)
    axes[-1].set_xticks([list(names).index(name) for name in ticks], ticks)
    axes[-1].tick_params("x", labelrotation=60, labelsize=6)
    for label in axes[-1].get_xticklabels():
        label.set(ha="right", rotation_mode="anchor")
    if len(flow) > 1:
        axes[0].legend([f"image {i}" for i in range(len(flow))], fontsize=7, ncols=4, frameon=False)
    figure.suptitle(title or "", fontsize=10)
    return figure


def _curve(
    axes: Axes, values: dict[str, list[float | None]], names: Sequence[str], count: int
) -> None:
    for image in range(count):
        column = [values.get(name, [None] * count)[image] for name in names]
        line = [math.nan if value is None else value for value in column]
        axes.plot(line, color=LINES[image % len(LINES)], linewidth=1.2)
    low, high = axes.get_ylim()
    axes.set_ylim(min(0.0, low), max(1.0, high))
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
