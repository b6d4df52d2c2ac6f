"""The tree of a decomposition as a page (no script, folding by <details>) and as a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torch import Tensor

from naflow_fx.decomposition.grow import ROOT, share
from naflow_fx.decomposition.tree import Tree
from naflow_fx.errors import ArtefactError, FlowError, OptionError, check_positive, required
from naflow_fx.view.colours import Bytes, Floats, colour_table
from naflow_fx.view.html import POLICY, data_uri, render
from naflow_fx.view.photos import as_photos

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = "inferno"
CELLS = 3  # of the layer's grid, along a side of a patch
LEAST = 1 / 8  # of the photo's side: no patch is smaller
LARGEST = 448  # pixels of the photo's long side in a page
FAINTEST, STRONGEST = 70, 205  # opacity of a map's smallest and largest value, of 255

Box = tuple[float, float, float, float]


def photo_of(found: Tree, photo: Any) -> Bytes:
    """The photo as RGB uint8 [H, W, 3]; None: the image itself.

    Raises:
        FlowError: it is of another form, or the maps are not of an image's two dimensions.
    """
    if found.image.dim() != 3:
        raise FlowError(f"decomposition: an image of shape {list(found.image.shape)} can't be "
                        "drawn; use .tree, str() or .to_json()")  # fmt: skip
    if photo is None and found.image.shape[0] not in (1, 3):
        raise FlowError(f"decomposition: an image of {found.image.shape[0]} channels is no "
                        "picture; give photo=")  # fmt: skip
    return as_photos(found.image if photo is None else photo, 1)[0]


def unit_map(values: Tensor) -> Floats:
    """A map [h, w] scaled to [0, 1] by its largest value."""
    plain = values.float().numpy()
    largest = float(plain.max(initial=0.0))
    scaled: Floats = (plain / largest if largest > 0 else plain).astype(np.float32)
    return scaled


def patch_box(peak: tuple[int, ...], size: tuple[int, ...]) -> Box:
    """(left, top, width, height) of a patch, as shares of the photo, wholly inside it.

    peak: (row, column) in a grid of `size` (rows, columns).
    """
    sides = [min(1.0, max(CELLS / n, LEAST)) for n in size]
    starts = [
        min(max((at + 0.5) / n - side / 2, 0.0), 1 - side)
        for at, n, side in zip(peak, size, sides, strict=True)
    ]
    return starts[1], starts[0], sides[1], sides[0]


def map_uri(values: Tensor) -> str:
    """A map [h, w] at its own resolution as a data URI: a colour and an opacity for each value."""
    picture = Image.fromarray(np.rint(unit_map(values) * 255).astype(np.uint8), "L")
    picture = picture.convert("P")
    picture.putpalette(colour_table(COLOURS).tobytes())
    opacity = np.linspace(FAINTEST, STRONGEST, 256).round().astype(np.uint8)
    return data_uri(picture, "png", transparency=opacity.tobytes(), optimize=True)


def page(found: Tree, photo: Any) -> str:
    """What `Decomposition.save_html` writes."""
    pixels = photo_of(found, photo)
    height, width = pixels.shape[:2]
    small = Image.fromarray(pixels)
    small.thumbnail((LARGEST, LARGEST))
    return render("decomposition.html", policy=POLICY, name=found.name, layers=found.layers,
                  cost=str(found.cost), photo=data_uri(small, "jpeg", quality=88), width=width,
                  height=height, root=_node(found, ROOT, pixels))  # fmt: skip


def _node(found: Tree, node: str, photo: Bytes) -> dict[str, Any]:
    """What the page shows of a node, with its children inside; of a leaf they are None."""
    facts = found.tree.nodes[node]
    called = found.name if facts["channel"] is None else f"channel {facts['channel']}"
    shown = {"title": found.title(node), "called": called, "layer": facts["layer"],
             "value": facts["evidence"], "share": facts["share"], "map": map_uri(facts["map"]),
             "patch": "", "children": None}  # fmt: skip
    if node != ROOT:
        box = patch_box(facts["peak"], tuple(facts["map"].shape))
        sides = zip(("left", "top", "width", "height"), box, strict=True)
        shown["ring"] = ";".join(f"{side}:{length:.2%}" for side, length in sides)
        shown["patch"] = _patch(*box, photo)
    if "bias" in facts:
        below = found.tree.successors(node)
        shown["children"] = [_node(found, child, photo) for child in below]
        constants = ", ".join(f"{k} {v:.3g}" for k, v in facts["constants"].items() if v)
        rest = (("all other channels", "remainder", ""), ("constants", "bias", constants))
        shown["rest"] = [
            {
                "title": title,
                "value": facts[key],
                "parts": parts,
                "share": share(facts[key], facts["evidence"]),
            }
            for title, key, parts in rest
        ]
    return shown


def _patch(left: float, top: float, width: float, height: float, photo: Bytes) -> str:
    """The style of a box that shows a part of the photo, by its own picture, enlarged and moved."""
    x = left / (1 - width) if width < 1 else 0.0
    y = top / (1 - height) if height < 1 else 0.0
    shape = f"{width * photo.shape[1]:.1f} / {height * photo.shape[0]:.1f}"
    return (f"background-size:{1 / width:.2%} {1 / height:.2%};"
            f"background-position:{x:.2%} {y:.2%};aspect-ratio:{shape}")  # fmt: skip


COLUMN, ROW = 2.2, 1.0  # inches
THUMB = 0.8  # inches, side of a picture
LABEL = 0.92  # inches beside it
EDGE = "#c9c6dd"
WIDEST = 9.0  # points, of an edge that carries all of the parent's evidence


def plot(found: Tree, photo: Any, rows: int) -> Figure:
    """What `Decomposition.plot` documents."""
    required("matplotlib", extra="viz", what="plot", error=ArtefactError)
    from matplotlib.figure import Figure

    check_positive(OptionError, "plot", rows=rows)
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
    places: dict[str, tuple[float, float]] = {}
    free = 0
    for level in reversed(range(len(levels))):
        for node in levels[level]:
            rows = [places[c][1] for c in found.tree.successors(node) if c in places]
            if not rows:
                rows, free = [float(free)], free + 1
            places[node] = (float(level), sum(rows) / len(rows))
        if level == len(levels) - 1:
            free = max(map(len, levels))
    return places


def _draw(
    figure: Figure, found: Tree, node: str, places: dict[str, tuple[float, float]], photo: Bytes
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
        (x + THUMB + 0.06) / width,
        y / height,
        f"{name}\n{amount}",
        fontsize=7.5,
        va="center",
        parse_math=False,
    )


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
