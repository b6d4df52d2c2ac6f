"""What a notebook shows of a flow and of an explainer: static HTML, every text escaped."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from PIL import Image

from naflow_fx.errors import FlowError
from naflow_fx.selection import evenly
from naflow_fx.view.colours import colourise
from naflow_fx.view.html import data_uri, render

if TYPE_CHECKING:
    from naflow_fx.flow.data import FlowData
    from naflow_fx.inspection.records import Steps

LAYERS, IMAGES, SIDE = 8, 4, 96  # at most so many maps in a row, and rows; pixels of a map
COLUMNS = ("layer", "operator", "shape", "inverse", "equation", "captures")


def of_flows(line: str, flows: Sequence[FlowData]) -> str:
    """A line about them, if there is one; every flow's line, and maps where they are pictures."""
    return render("notebook.html", line=line, flows=[_flow(flow) for flow in flows])


def of_explainer(made: Steps, method: str) -> str:
    """How many layers, how they are explained, and per block a table that unfolds."""
    size = " x ".join(made.rows[0].shape.split("x")) if made.rows else ""
    blocks = [
        (block, [(r.layer, r.operator, r.shape, r.kind, r.equation, r.captures) for r in rows])
        for block, rows in groupby(made.rows, key=lambda row: row.layer.rpartition(".")[0])
    ]
    return render("notebook.html", count=len(made), size=size, method=method, blocks=blocks,
                  columns=COLUMNS)  # fmt: skip


def _flow(flow: FlowData) -> dict[str, Any]:
    """What the template shows of a flow."""
    found: dict[str, Any] = {"line": repr(flow), "rows": []}
    try:
        planes = flow.drawable("map")
    except FlowError:
        return found
    names = evenly(list(planes), LAYERS)
    count = min(len(flow), IMAGES)
    rows = [[_picture(planes[name][i]) for name in names] for i in range(count)]
    return found | {"names": names, "rows": rows, "more": len(flow) - IMAGES, "side": SIDE}


def _picture(plane: Any) -> str:
    """One map, as computed, as the address of an image."""
    small = Image.fromarray(colourise(plane))
    return data_uri(small.resize((SIDE, SIDE), Image.Resampling.NEAREST), "png")
