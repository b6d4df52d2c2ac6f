"""From a photo file to a model's input tensor and back to the picture that the model saw."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from os import PathLike
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from naflow_fx.errors import PhotoError, TargetError, is_out_of_memory, unfit

FILTERS = {name: Image.Resampling[name.upper()] for name in ("nearest", "bilinear", "bicubic")}
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")
MAX_PIXELS = 100_000_000  # of a photo after resizing: only a strip of a picture comes near


@dataclass(frozen=True)
class Preprocessing:
    """tensor = (scale * pixel - mean) / std on the centre crop of the resized photo.

    `resize`: pixels of the short side, or (height, width) to stretch to; `crop`: pixels of the
    square that is cut from the centre; `mean`, `std`: of the channels R, G, B, or of the one
    channel of a network of grey photos, in units of scale * pixel with pixel in 0..255 (1/255: the
    common 0..1); `interpolation`: of the resize. Pixel for pixel what `torchvision.transforms`
    gives for a PIL image.
    """

    resize: int | tuple[int, int] = 256
    crop: int = 224
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    scale: float = 1 / 255
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"

    def __post_init__(self) -> None:
        short = self.resize if isinstance(self.resize, int) else min(self.resize)
        if not 1 <= self.crop <= short:
            wanted = f"1 to {short} pixels, the short side after the resize"
            raise unfit(PhotoError, "Preprocessing", wanted, crop=self.crop)
        if self.channels not in (1, 3) or len(self.std) != self.channels or 0 in self.std:
            wanted = "three numbers each, or one each for grey photos, and no std of 0"
            raise unfit(PhotoError, "Preprocessing", wanted, mean=self.mean, std=self.std)

    @property
    def channels(self) -> int:
        """Number C of channels: 3, or 1 for a network of grey photos."""
        return len(self.mean)

    def __call__(self, photo: Image.Image) -> Tensor:
        """The model's input [C, crop, crop], float32, of a photo of any mode and size."""
        return self.normalise(self.pixels(photo))

    def normalise(self, pixels: Tensor) -> Tensor:
        """The model's input of `pixels` [..., C, H, W], on their device."""
        mean, std = self._statistics(pixels.device)
        return (pixels.float() * self.scale - mean) / std

    def pixels(self, photo: Image.Image) -> Tensor:
        """What `picture` shows as uint8 [C, crop, crop]."""
        pixels = torch.from_numpy(np.array(self.picture(photo))).permute(2, 0, 1)
        return pixels[: self.channels]

    def picture(self, photo: Image.Image) -> Image.Image:
        """The part of the photo that the model sees: RGB (or three equal greys), crop x crop."""
        width, height = self._resized(photo.size)
        if width * height > MAX_PIXELS:
            raise PhotoError(
                f"the photo is a strip of {photo.width} x {photo.height} pixels; cut "
                "it to the part of interest first"
            )
        coloured = to_rgb(photo)
        if self.channels == 1:
            coloured = coloured.convert("L").convert("RGB")
        resized = coloured.resize((width, height), FILTERS[self.interpolation])
        left, top = round((width - self.crop) / 2), round((height - self.crop) / 2)
        return resized.crop((left, top, left + self.crop, top + self.crop))

    def denormalise(self, tensor: Tensor) -> NDArray[np.uint8]:
        """The picture [H, W, 3], uint8 RGB, that became `tensor` [C, H, W] (or [1, C, H, W])."""
        if tensor.dim() == 4 and tensor.shape[0] == 1:
            tensor = tensor[0]
        if tensor.dim() != 3 or tensor.shape[0] != self.channels:
            raise PhotoError(f"wanted one image [{self.channels}, H, W], got {list(tensor.shape)}")
        mean, std = self._statistics(tensor.device)
        pixels = (tensor.detach().float() * std + mean) / self.scale
        rounded = pixels.round().clamp(0, 255).to(torch.uint8).expand(3, -1, -1)
        array: NDArray[np.uint8] = rounded.permute(1, 2, 0).contiguous().cpu().numpy()
        return array

    def _statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, each [C, 1, 1]."""
        mean, std = torch.tensor([self.mean, self.std], device=device)[..., None, None]
        return mean, std

    def _resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) after the resize; the long side is rounded down, as torchvision does."""
        if not isinstance(self.resize, int):
            return self.resize[1], self.resize[0]
        width, height = size
        if width <= height:
            return self.resize, int(self.resize * height / width)
        return int(self.resize * width / height), self.resize


def open_photo(path: str | PathLike[str]) -> Image.Image:
    """The photo in a file, upright (EXIF orientation applied), 8-bit RGB, first frame.

    What the file holds counts, not its name: Pillow's other readers (one starts Ghostscript) never
    see it.  Raises PhotoError, in one line, if the file is missing, unreadable, none of `FORMATS`,
    cut short, or so large that decoding it is not safe.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # oddities of metadata; an unsafe size still raises
            with Image.open(path, formats=_formats()) as image:
                image.load()
                return to_rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError as error:
        raise PhotoError(f"{path}: no such file; check the path") from error
    # ultralytics replaces Image.open: what Pillow can't read has a reader imported that may lack
    except (UnidentifiedImageError, ImportError) as error:
        raise PhotoError(f"{path}: not a picture; give a file of {', '.join(FORMATS)}") from error
    except Image.DecompressionBombError as error:
        raise PhotoError(
            f"{path}: too many pixels to open safely; make it smaller first"
        ) from error
    except Exception as error:  # decoders raise nearly anything on damaged bytes
        if is_out_of_memory(error):
            raise
        if isinstance(error, OSError) and error.strerror:
            raise PhotoError(f"{path}: cannot be read ({error.strerror})") from error
        raise PhotoError(
            f"{path}: damaged or cut short ({error}); copy or download it again"
        ) from error


@cache
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture as 8-bit RGB: transparent parts white, 16-bit and float grey scaled to 0..255."""
    if image.mode == "RGB":
        return image
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_to_8_bit(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _to_8_bit(grey: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Grey values [H, W] of any type as 0..255.

    White is 65535 in 16-bit types and where a value is above 255, 1 where all values are
    fractions up to 1, else 255.
    """
    values = np.nan_to_num(grey.astype(np.float64))
    wide = grey.dtype.itemsize == 2 or values.max(initial=0) > 255
    full = 65535 if wide else 1 if grey.dtype.kind == "f" and values.max(initial=0) <= 1 else 255
    grey_8_bit: NDArray[np.uint8] = np.clip(values * (255 / full), 0, 255).round().astype(np.uint8)
    return grey_8_bit


@cache
def class_names() -> tuple[str, ...]:
    """The 1000 ImageNet class names in the order of the classes, as torchvision spells them."""
    from torchvision.models import ResNet18_Weights

    return tuple(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])


def class_index(name_or_number: str | int, names: Sequence[str]) -> int:
    """The class of a name ("espresso") or a number (967, "967").

    Upper case and underscores do not matter where one name alone is meant: "cardigan" (clothes)
    and "Cardigan" (a dog) are two of ImageNet's.

    Args:
        name_or_number: of a person.
        names: of the classes, in their order.

    Raises:
        TargetError: there is no such class, with the nearest names, or several have the name.
    """
    of = " of ImageNet" if tuple(names) == class_names() else ""
    text = str(name_or_number).strip()
    found = [i for i, name in enumerate(names) if name == text]
    if not found and re.fullmatch(r"[+-]?\d+", text):
        if 0 <= int(text) < len(names):
            return int(text)
        raise TargetError(f"no class {text}{of}; there are 0 to {len(names) - 1}")
    folded, wanted = [_fold(name) for name in names], _fold(text)
    found = found or [i for i, name in enumerate(folded) if name == wanted]
    if len(found) == 1:
        return found[0]
    if found:
        raise TargetError(f"{text!r} is the name of the classes {', '.join(map(str, found))}; "
                          "give a number")  # fmt: skip
    near = difflib.get_close_matches(wanted, folded, n=5)
    near += [name for name in folded if wanted and wanted in name and name not in near][:5]
    listed = ", ".join(f"{names[i]} ({i})" for i in map(folded.index, near or folded[:5]))
    raise TargetError(f"no class {text!r}{of}; {'near' if near else 'there are'}: {listed}")


def _fold(name: str) -> str:
    return name.casefold().replace("_", " ")
