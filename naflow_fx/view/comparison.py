"""Flows of one photo below each other, and of two their difference in diverging colours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from naflow_fx.flow.data import FlowData
from naflow_fx.selection import choose
from naflow_fx.view.colours import DIVERGING, Bytes, Floats, resize_map, show_on_image
from naflow_fx.view.photos import Style, photos_of
from naflow_fx.view.record import shape_text
from naflow_fx.view.sheet import rows_grid


def comparison(
    flows: Mapping[str, FlowData], images: Any, style: Style, title: str, subtitle: str
) -> Image.Image:
    """A sheet with a row a flow, a column a layer; two flows have a third row, first minus second.

    flows: name of the row -> flow of the one photo (N = 1). images: it, as `AttentionFlow.overlay`
    takes it, or None: the one that the first flow knows.
    style: its layers are call sites that all flows have. Each map is divided by the value that
    99 % of its positions stay below, and cut at 1: by its largest, early maps, a few points, would
    be dark. Maps are compared as they are drawn: red where the first has more, blue where the
    second has. Raises FlowError where one lacks a layer.
    """
    first = next(iter(flows.values()))
    (pixels,) = photos_of(first, images)
    layers = choose(list(first.maps), style.layers)
    drawn = (flow.drawable("map") for flow in flows.values())
    maps = [[_clear(planes[n][0]) for n in choose(list(planes), layers)] for planes in drawn]
    look: Any = {"alpha": style.alpha, "colormap": style.colormap, "smooth": style.smooth}
    rows = [[show_on_image(pixels, one, **look) for one in row] for row in maps]
    names, told = list(flows), [subtitle]
    if len(maps) == 2:
        both = zip(*maps, strict=True)
        rows.append([difference(a, b, pixels, smooth=style.smooth) for a, b in both])
        told.append(f"last row: red where {names[0]} has more, blue where {names[1]} has")
        names.append(f"{names[0]} - {names[1]}")
    labels = [(name, shape_text(first.maps[name])) for name in layers]
    return rows_grid(
        names,
        [pixels] * len(rows),
        labels,
        rows,
        title=title,
        subtitle=" · ".join(told),
        colormap=style.colormap,
        legend=("0", "the brightest 1 % of each map"),
    )


def _clear(one: Floats) -> Floats:
    """A map divided by its 99th percentile, at most 1; as it is where that is 0."""
    bound = float(np.quantile(one, 0.99))
    return np.asarray((one / bound).clip(0, 1)) if bound > 0 else one


def difference(
    first: Floats, second: Floats, photo: Bytes, alpha: float = 0.8, smooth: bool = True
) -> Bytes:
    """One map minus another, each in [0, 1], in diverging colours over the grey photo [H, W, 3]."""
    size = (photo.shape[0], photo.shape[1])
    less = resize_map(first, size, smooth) - resize_map(second, size, smooth)
    colours = DIVERGING[np.rint(127.5 * (less + 1)).astype(np.intp)]
    grey = photo.astype(np.float32).mean(2, keepdims=True)
    mixed: Bytes = np.rint((1 - alpha) * grey + alpha * colours).clip(0, 255).astype(np.uint8)
    return mixed
