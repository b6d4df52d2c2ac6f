"""What a notebook shows of a flow and of an explainer: static HTML, every text escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from naflow_fx.errors import FlowError
from naflow_fx.render import colourise
from naflow_fx.selection import spread

if TYPE_CHECKING:
    from naflow_fx.explainer import Explainer
    from naflow_fx.flow import AttentionFlow
    from naflow_fx.pairs import PairFlow

LAYERS, IMAGES, SIDE = 8, 4, 96  # at most so many maps in a row, and rows; pixels of a map
CELL = "padding:2px 10px 2px 0;text-align:left;font-size:12px;vertical-align:top"
COLUMNS = ("layer", "operator", "shape", "inverse", "equation", "captures")


def of_flow(flow: AttentionFlow) -> str:
    """The flow's line, and maps along depth where they are pictures."""
    line = f"<p><code>{escape(repr(flow))}</code></p>"
    try:
        planes = flow.drawable("map")
    except FlowError:
        return line
    names = spread(list(planes), LAYERS)
    rows = [
        "".join(f"<td style='{CELL}'>{_picture(planes[n][i], n)}</td>" for n in names)
        for i in range(min(len(flow), IMAGES))
    ]
    heads = "".join(f"<th style='{CELL}'>{escape(name)}</th>" for name in names)
    more = f"<p>and {len(flow) - IMAGES} more images</p>" if len(flow) > IMAGES else ""
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"{line}<table><tr>{heads}</tr>{body}</table>{more}"


def of_pairs(flow: PairFlow) -> str:
    """The pairs' line, then the flows of the queries and of the supports."""
    line = f"<p><code>{escape(repr(flow))}</code></p>"
    return line + of_flow(flow.query) + of_flow(flow.support)


def of_explainer(explainer: Explainer) -> str:
    """How many layers, how they are explained, and per block a table that unfolds."""
    made = explainer.inspect()
    size = " x ".join(str(length) for length in made.rows[0].shape.split("x")) if made.rows else ""
    head = (
        f"<p><b>Explainer</b> of {len(made)} layers · input {escape(size)} · "
        f"{escape(str(explainer.options.method))}</p>"
    )
    parts = (
        f"<details><summary>{escape(block or 'no block')}</summary>{_table(rows)}</details>"
        for block, rows in groupby(made.rows, key=lambda row: row.layer.rpartition(".")[0])
    )
    return head + "".join(parts)


def _table(rows: Iterable[Any]) -> str:
    """Rows of an inspection."""
    heads = "".join(f"<th style='{CELL}'>{name}</th>" for name in COLUMNS)
    body = "".join(
        "<tr>" + "".join(f"<td style='{CELL}'>{escape(value)}</td>" for value in _values(row))
        + "</tr>"
        for row in rows
    )  # fmt: skip
    return f"<table><tr>{heads}</tr>{body}</table>"


def _values(row: Any) -> tuple[str, ...]:
    return (row.layer, row.operator, row.shape, row.kind, row.equation, row.captures)


def _picture(plane: Any, name: str) -> str:
    """One map, as computed, as an image of its own."""
    small = Image.fromarray(np.asarray(colourise(plane)))
    larger = small.resize((SIDE, SIDE), Image.Resampling.NEAREST)
    file = io.BytesIO()
    larger.save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    return f"<img width='{SIDE}' alt='map of {escape(name)}' src='data:image/png;base64,{data}'>"
