"""The tree of a decomposition as a matplotlib figure, the decision at the left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from naflow_fx.decomposition.pictures import COLOURS, FAINTEST, STRONGEST, photo_of, unit_map
from naflow_fx.decomposition.tree import ROOT, Tree
from naflow_fx.errors import ArtefactError, OptionError, required, unfit
from naflow_fx.view.colours import Bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMN, ROW = 2.2, 1.0  # inches
THUMB = 0.8  # inches, side of a picture
LABEL = 0.92  # inches beside it
EDGE = "#c9c6dd"
WIDEST = 9.0  # points, of an edge that carries all of the parent's evidence


def plot(found: Tree, photo: Any, rows: int) -> Figure:
    """What `Decomposition.plot` documents."""
    required("matplotlib", extra="viz", what="plot", error=ArtefactError)
    from matplotlib.figure import Figure

    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
        raise unfit(OptionError, "plot", "an integer >= 1", rows=rows)
    pixels = photo_of(found, photo)
    levels = _levels(found, rows)
    places = _places(found, levels)
    width, height = COLUMN * len(levels), ROW * max(map(len, levels)) + 0.45
    figure = Figure(figsize=(width, height), facecolor="white")
    for level, nodes in enumerate(levels):
        heading = "decision" if level == 0 else found.layers[level - 1]
        figure.text((level + 0.03) / len(levels), 1 - 0.22 / height, heading, fontsize=8.5,
                    weight="bold", va="center")  # fmt: skip
        for node in nodes:
            _draw(figure, found, node, places, pixels)
    return figure


def _levels(found: Tree, rows: int) -> list[list[str]]:
    """The nodes that are drawn, a list a level."""
    levels = [[ROOT]]
    while True:
        below = [list(found.tree.successors(node)) for node in levels[-1]]
        if sum(map(len, below)) > rows:
            below = [children[:1] for children in below]
        if not any(below):
            return levels
        levels.append([child for children in below for child in children])


def _places(found: Tree, levels: list[list[str]]) -> dict[str, tuple[float, float]]:
    """Where each node is, in columns and rows: a parent at the middle of its children."""
    tallest = max(map(len, levels))
    places: dict[str, tuple[float, float]] = {}
    free = 0.0
    for level in range(len(levels) - 1, -1, -1):
        for node in levels[level]:
            below = [places[c][1] for c in found.tree.successors(node) if c in places]
            if below:
                y = sum(below) / len(below)
            else:
                y, free = free, free + 1
            places[node] = (float(level), y)
        if level == len(levels) - 1:
            free = float(tallest)
    return places


def _draw(
    figure: Figure,
    found: Tree,
    node: str,
    places: dict[str, tuple[float, float]],
    photo: Bytes,
) -> None:
    """A picture, what it is called, and the edge from its parent."""
    width, height = figure.get_size_inches()
    facts = found.tree.nodes[node]
    x, y = _inches(places[node], height)
    for parent in found.tree.predecessors(node):
        from_x, from_y = _inches(places[parent], height)
        _edge(figure, (from_x + THUMB + LABEL, from_y), (x, y), facts["share"])
    axes = figure.add_axes((x / width, (y - THUMB / 2) / height, THUMB / width, THUMB / height))
    values = unit_map(facts["map"])
    opacity = (FAINTEST + (STRONGEST - FAINTEST) * values) / 255
    frame = (0, photo.shape[1], photo.shape[0], 0)
    axes.imshow(photo, extent=frame)
    axes.imshow(values, COLOURS, alpha=opacity, interpolation="bilinear", extent=frame)
    axes.set_axis_off()
    name = found.name if node == ROOT else f"channel {facts['channel']}"
    amount = f"{facts['evidence']:.3g}" + ("" if node == ROOT else f"  ({facts['share']:.0%})")
    figure.text(
        (x + THUMB + 0.06) / width, y / height, f"{name}\n{amount}", fontsize=7.5, va="center",
        parse_math=False,
    )  # fmt: skip


def _inches(place: tuple[float, float], height: float) -> tuple[float, float]:
    """Left edge and middle of a picture, from the figure's lower left corner."""
    return 0.06 + place[0] * COLUMN, height - 0.45 - (place[1] + 0.5) * ROW


def _edge(figure: Figure, a: tuple[float, float], b: tuple[float, float], part: float) -> None:
    """A curve from a to b (inches), as wide as the share that it carries."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    middle = (a[0] + b[0]) / 2
    points = np.array([a, (middle, a[1]), (middle, b[1]), b])
    curve = Path(points / figure.get_size_inches(), [Path.MOVETO, *[Path.CURVE4] * 3])
    breadth = max(0.6, WIDEST * min(abs(part), 1.0))
    line = PathPatch(curve, fill=False, edgecolor=EDGE, linewidth=breadth, capstyle="butt",
                     zorder=-1, transform=figure.transFigure)  # fmt: skip
    figure.add_artist(line)
