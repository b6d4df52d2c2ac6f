"""What the page and the figure of a decomposition are drawn from."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from naflow_fx.decomposition.tree import Tree
from naflow_fx.errors import FlowError
from naflow_fx.view.colours import Bytes, Floats, colour_table
from naflow_fx.view.files import data_uri
from naflow_fx.view.photos import as_photos

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


def photo_uri(photo: Bytes) -> str:
    """The photo as a data URI, JPEG, its long side at most `LARGEST` pixels."""
    picture = Image.fromarray(photo)
    picture.thumbnail((LARGEST, LARGEST))
    return data_uri(picture, "jpeg", quality=88)


def map_uri(values: Tensor) -> str:
    """A map [h, w] at its own resolution as a data URI: a colour and an opacity for each value."""
    picture = Image.fromarray(np.rint(unit_map(values) * 255).astype(np.uint8), "L")
    picture = picture.convert("P")
    picture.putpalette(colour_table(COLOURS).tobytes())
    opacity = np.linspace(FAINTEST, STRONGEST, 256).round().astype(np.uint8)
    return data_uri(picture, "png", transparency=opacity.tobytes(), optimize=True)
