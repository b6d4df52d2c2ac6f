"""Several flows of one photo in one sheet: a row a flow, the same call sites below each other."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from naflow_fx.flow.data import FlowData
from naflow_fx.view.colours import show_on_image
from naflow_fx.view.files import write
from naflow_fx.view.photos import as_photos
from naflow_fx.view.record import shape_text
from naflow_fx.view.rows import rows_grid
from naflow_fx.view.save import LEGENDS, thumbnail

THUMBNAIL = 384  # longest side of a picture in the sheet, pixels


def save_rows(
    path: Path,
    names: Sequence[str],
    flows: Sequence[FlowData],
    layers: Sequence[str],
    title: str,
    subtitle: str,
    alpha: float,
    colormap: str,
) -> Path:
    """Write the sheet as PNG, whole or not at all.

    Args:
        path: of the file.
        names: of the rows.
        flows: of one image each, which they know.
        layers: call sites that are drawn, of those that every flow has.
        title: heading.
        subtitle: below it, wrapped at " · ".
        alpha: share of the colours.
        colormap: as for `AttentionFlow.overlay`.
    """
    common = [name for name in layers if all(name in flow.maps for flow in flows)]
    photos = [thumbnail(as_photos(list(flow.about.photos), 1)[0], THUMBNAIL) for flow in flows]
    maps = [flow.drawable("map") for flow in flows]
    rows = [
        [show_on_image(np.asarray(photo), each[name][0], alpha=alpha, colormap=colormap)
         for name in common]
        for photo, each in zip(photos, maps, strict=True)
    ]  # fmt: skip
    labels = [(name, shape_text(flows[0].maps[name])) for name in common]
    sheet = rows_grid(
        names, [np.asarray(photo) for photo in photos], labels, rows,
        title=title, subtitle=subtitle, colormap=colormap, legend=("0", LEGENDS["map"]),
    )  # fmt: skip
    data = io.BytesIO()
    sheet.save(data, "PNG")
    write(path, data.getvalue())
    return path
