"""Colours for attention maps: colour tables, a map as colours, a map over a photo (numpy, PIL).

The sheet with the maps of every call site is in `sheet.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from naflow_fx.errors import FlowError, one_of, unfit

Floats = NDArray[np.floating[Any]]
Bytes = NDArray[np.uint8]

#: 33 evenly spaced colours of matplotlib's tables (CC0, N. Smith and S. van der Walt); between
#: them a straight line is within 2 of 255 of the full tables. All three are safe for the
#: colour-blind and grow evenly in lightness, which jet does not.
ANCHORS = {
    "inferno": """
        000004 040312 0b0724 150b37 210c4a 2f0a5b 3d0965 4a0c6b 57106e 64156e 71196e
        7d1e6d 8a226a 972766 a32c61 b0315b bc3754 c63d4d d04545 da4e3c e35933 eb6429
        f1711f f67e14 f98c0a fb9b06 fcaa0f fbba1f f9c932 f5d949 f2e865 f3f586 fcffa4
    """,
    "magma": """
        000004 030312 0a0822 130d34 1d1147 29115a 36106b 440f76 51127c 5d177f 6a1c81
        762181 832681 902a81 9c2e7f aa337d b73779 c23b75 cf4070 db476a e55064 ee5b5e
        f4695c f9785d fb8761 fd9668 fea571 feb47b fec287 fed194 fde0a1 fceeb0 fcfdbf
    """,
    "viridis": """
        440154 470d60 48186a 482374 472d7b 453781 424086 3e4989 3b528b 375b8d 33638d
        2f6b8e 2c728e 297a8e 26828e 23898e 21918c 1f978b 1f9f88 21a685 27ad81 31b57b
        3dbc74 4cc26c 5cc863 6ece58 81d34d 95d840 aadc32 c0df25 d5e21a eae51a fde725
    """,
}
#: Of differences, -1 blue to 1 red: ColorBrewer's RdBu (Apache-2.0, C. Brewer), safe as well.
RED_BLUE = """
    053061 2166ac 4393c3 92c5de d1e5f0 f7f7f7 fddbc7 f4a582 d6604d b2182b 67001f
"""
#: Corners (position, value) of jet's red, green and blue.
JET = (
    ((0, 0), (0.35, 0), (0.66, 1), (0.89, 1), (1, 0.5)),
    ((0, 0), (0.125, 0), (0.375, 1), (0.64, 1), (0.91, 0), (1, 0)),
    ((0, 0.5), (0.11, 1), (0.34, 1), (0.65, 0), (1, 0)),
)


def _through(corners: Any) -> Floats:
    """256 values on the straight lines through (position in [0, 1], value) corners."""
    positions, values = np.asarray(corners, dtype=np.float64).T
    return np.asarray(np.interp(np.linspace(0, 1, 256), positions, values))


def _between(text: str) -> Floats:
    """256 colours on the straight lines between evenly spaced ones."""
    colours = np.array([list(bytes.fromhex(word)) for word in text.split()])
    places = np.rint(np.linspace(0, 255, len(colours))) / 255
    return np.stack([_through(list(zip(places, c, strict=True))) for c in colours.T], 1)


def _tables() -> dict[str, Bytes]:
    """Every colour table, name -> uint8 [256, 3]."""
    tables = {name: _between(text) for name, text in ANCHORS.items()}
    tables["jet"] = 255 * np.stack([_through(corners) for corners in JET], 1)
    tables["gray"] = np.repeat(np.arange(256.0)[:, None], 3, axis=1)
    return {name: np.rint(table).astype(np.uint8) for name, table in tables.items()}


TABLES = _tables()
DIVERGING: Bytes = np.rint(_between(RED_BLUE)).astype(np.uint8)
#: Names that every `colormap=` argument takes; the first one is the default.
COLORMAPS = tuple(TABLES)


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
            f"{what} must lie in [0, 1], got {low:.4g} to {high:.4g}. "
            "Scale it first: flow.normalised() for maps, image / 255 for a photo of floats."
        )
    return numbers.clip(0, 1)


def colour_table(colormap: str) -> Bytes:
    """The 256 colours of a colormap, uint8 [256, 3]; FlowError for an unknown name."""
    if colormap not in TABLES:
        raise unfit(FlowError, "overlay", one_of(COLORMAPS), colormap=colormap)
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
