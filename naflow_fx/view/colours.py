"""Colours for attention maps: colour tables, a map as colours, a map over a photo (numpy, PIL).

The sheet with the maps of every call site is in `sheet.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from naflow_fx.errors import FlowError, check_choice, unfit

Floats = NDArray[np.floating[Any]]
Bytes = NDArray[np.uint8]

#: Names that every `colormap=` argument takes; the first one is the default.
COLORMAPS = ("inferno", "magma", "viridis", "jet", "gray")
_ROWS: Bytes = np.asarray(Image.open(Path(__file__).with_name("colormaps.png")))
#: Of each its 256 colours, uint8 [256, 3]. The first three are matplotlib's (CC0, N. Smith and
#: S. van der Walt), within 2 of 255: safe for the colour-blind, and they grow evenly in lightness,
#: which jet does not.
TABLES: dict[str, Bytes] = dict(zip(COLORMAPS, _ROWS[:-1], strict=True))
#: Of differences, -1 blue to 1 red: ColorBrewer's RdBu (Apache-2.0, C. Brewer), safe as well.
DIVERGING = _ROWS[-1]


def as_array(value: Any) -> NDArray[Any]:
    """The numbers of an array, a PIL image or a tensor (any device, half types too) in numpy."""
    if isinstance(value, Image.Image):
        return np.asarray(value.convert("RGB"))
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if value.dtype.is_floating_point else value
    return np.asarray(value)


def _unit(values: NDArray[Any], what: str) -> Floats:
    """`values` as floats, checked to be finite and in [0, 1] up to rounding."""
    numbers = values.astype(np.float32, copy=False)
    if not numbers.size:
        raise FlowError(f"{what} is empty, shape {tuple(numbers.shape)}.")
    check_finite(numbers, what)
    low, high = float(numbers.min()), float(numbers.max())
    if low < -1e-4 or high > 1 + 1e-4:
        raise FlowError(
            f"{what} must lie in [0, 1], got {low:.4g} to {high:.4g}. Scale it first: "
            "flow.normalised() for maps, image / 255 for a photo of floats."
        )
    return numbers.clip(0, 1)


def colour_table(colormap: str) -> Bytes:
    """The 256 colours of a colormap, uint8 [256, 3]; FlowError for an unknown name."""
    check_choice(FlowError, "overlay", COLORMAPS, colormap=colormap)
    return TABLES[colormap]


def check_alpha(alpha: float) -> None:
    """Nothing if a map can be drawn with that opacity; FlowError else."""
    if not 0 <= alpha <= 1:
        raise unfit(FlowError, "overlay", "a number from 0 to 1", alpha=alpha)


def check_finite(numbers: NDArray[Any], what: str) -> None:
    """Nothing if all numbers are finite; FlowError else."""
    if not np.isfinite(numbers).all():
        raise FlowError(f"{what} has values that are not finite (NaN or infinite).")


def colourise(map01: Any, colormap: str = "inferno") -> Bytes:
    """Colours of a map: values [...] in [0, 1] (array or tensor) to RGB uint8 [..., 3]."""
    values = _unit(as_array(map01), "The map")
    return colour_table(colormap)[np.rint(values * 255).astype(np.intp)]


def resize_map(map01: Floats, size: tuple[int, int], smooth: bool = True) -> Floats:
    """A map [h, w] at another `size` (H, W), bicubic with half-pixel centres, float32 in [0, 1].

    Keys' cubic convolution (1981, a = -1/2): bilinear interpolation makes diamonds of a coarse
    map's peaks.  Shrinking averages, so that no peak is stepped over.  smooth: False shows the
    map's own cells.
    """
    picture = Image.fromarray(np.ascontiguousarray(map01, dtype=np.float32))
    how = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    resized = picture.resize((size[1], size[0]), how)
    return np.asarray(resized, dtype=np.float32).clip(0, 1)


def write_png(picture: Image.Image, path: Path) -> None:
    """Write a PNG file.

    Maps over photos are as small at zlib's level 4 as at Pillow's own 6, which takes them more
    than twice as long.
    """
    picture.save(path, "PNG", compress_level=4)


def _photo(image: Any) -> Floats:
    """A photo as floats [H, W, 3] in [0, 255]; FlowError for other shapes and ranges."""
    pixels = as_array(image)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    known = pixels.dtype == np.uint8 or np.issubdtype(pixels.dtype, np.floating)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or not known:
        raise FlowError(
            f"An image to draw on can't be {pixels.dtype} {tuple(pixels.shape)}; wanted RGB "
            "[H, W, 3] or grey [H, W], uint8 or floats in [0, 1]. A tensor [3, H, W] needs "
            ".permute(1, 2, 0)."
        )
    if pixels.dtype == np.uint8:
        return pixels.astype(np.float32)
    return 255 * _unit(pixels, "An image of floats")


def show_on_image(
    image: Any,
    attention: Any,
    *,
    alpha: float = 0.5,
    colormap: str = "inferno",
    smooth: bool = True,
) -> Bytes:
    """The map's colours over a photo: (1 - alpha) * photo + alpha * colours, RGB uint8 [H, W, 3].

    image: RGB, a PIL image, uint8 [H, W, 3], or floats [H, W, 3] in [0, 1]; arrays or tensors.
    attention: [h, w] floats in [0, 1], resized (bicubic) to the image when the sizes differ.
    alpha: share of the colours, 0 (photo alone) to 1 (colours alone).
    smooth: False shows the map's own cells.
    Raises FlowError for other shapes, ranges and types, and for an unknown colormap.
    """
    pixels, values = _photo(image), as_array(attention)
    if values.ndim != 2:
        raise FlowError(f"A map must have the shape [H, W], got {tuple(values.shape)}.")
    check_alpha(alpha)
    values = _unit(values, "The map")
    if values.shape != pixels.shape[:2]:
        values = resize_map(values, (pixels.shape[0], pixels.shape[1]), smooth)
    mixed = (1 - alpha) * pixels + alpha * colourise(values, colormap)
    return np.rint(mixed).clip(0, 255).astype(np.uint8)
