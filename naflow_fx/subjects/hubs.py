"""Networks of timm and of Hugging Face's transformers, with what they tell of themselves."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from naflow_fx.errors import ModelError, first_line, is_out_of_memory, required
from naflow_fx.models.preprocess import FILTERS, Preprocessing, class_names, to_rgb
from naflow_fx.subjects.network import Network, Prepare, of_output, with_weights
from naflow_fx.subjects.recipe import Recipe

TIMM, HF = "timm/", "hf/"


def open_timm(recipe: Recipe) -> Network:
    """`timm/NAME`: the network, its preprocessing and names, as timm's own configuration has them.

    Raises:
        ModelError: timm isn't installed, or has no such network or weights.
    """
    timm = required("timm", extra="hub", what=recipe.model, error=ModelError)
    name = recipe.model.removeprefix(TIMM)
    if not timm.is_model(name.partition(".")[0]):
        near = difflib.get_close_matches(name, timm.list_models(), n=5)
        raise ModelError(f"no model {name!r} in timm; near: {', '.join(near) or 'none'}")
    with _others_errors(recipe.model):  # a tag that the network doesn't have
        config = timm.get_pretrained_cfg(name)
    told: dict[str, Any] = config.to_dict() if config else {}

    def build(fetched: bool) -> nn.Module:
        with _others_errors(recipe.model):
            found: nn.Module = timm.create_model(name, pretrained=fetched, **recipe.model_args)
        return with_weights(found, recipe)

    weights = recipe.weights or told.get("tag") or None
    prepare, names = _timm_preprocessing(timm, told), _timm_names(timm, told)
    return Network(recipe.model, build, prepare, names, weights)


def _timm_preprocessing(timm: Any, told: dict[str, Any]) -> Prepare:
    """The transform that timm evaluates the network with, as numbers where they say all of it."""
    settings = timm.data.resolve_data_config(pretrained_cfg=told)
    _, height, width = settings["input_size"]
    mode = settings["crop_mode"]
    plain = height == width and settings["interpolation"] in FILTERS
    if not plain or mode not in ("center", "squash"):
        prepare: Prepare = timm.data.create_transform(**settings, is_training=False)
        return prepare
    resize = math.floor(height / settings["crop_pct"])
    mean, std = (tuple(value * 255 for value in settings[name]) for name in ("mean", "std"))
    return Preprocessing(
        (resize, resize) if mode == "squash" else resize,
        height,
        mean,
        std,
        1.0,
        settings["interpolation"],
    )


def _timm_names(timm: Any, told: dict[str, Any]) -> tuple[str, ...]:
    """What the classes of the public weights are called."""
    if told.get("label_names"):
        return tuple(told["label_names"])
    if told.get("num_classes") == len(class_names()):
        return class_names()
    subset = timm.data.infer_imagenet_subset(told)
    if subset is None:
        return ()
    known = timm.data.ImageNetInfo(subset)
    return tuple(known.index_to_description(i) for i in range(known.num_classes()))


def open_transformers(recipe: Recipe) -> Network:
    """`hf/NAME` or `hf/./FOLDER`: an image classifier of transformers with its processor.

    Raises:
        ModelError: transformers isn't installed, or there is no such classifier.
    """
    library = required("transformers", extra="hub", what=recipe.model, error=ModelError)
    place = recipe.model.removeprefix(HF)
    kind = library.AutoModelForImageClassification
    with _others_errors(recipe.model):
        config = library.AutoConfig.from_pretrained(place, **recipe.model_args)
        processor = library.AutoImageProcessor.from_pretrained(place)

    def build(fetched: bool) -> nn.Module:
        with _others_errors(recipe.model):
            found = (kind.from_pretrained(place, config=config, dtype=torch.float32) if fetched
                     else kind.from_config(config))  # fmt: skip
        return of_output(with_weights(found, recipe), "logits")

    names = tuple(config.id2label[i] for i in sorted(config.id2label))
    return Network(recipe.model, build, Processor(processor), names, recipe.weights or place)


@dataclass(frozen=True)
class Processor:
    """A photo's input by an image processor of transformers."""

    processor: Any

    def __call__(self, photo: Image.Image) -> Tensor:
        """The input [C, H, W] of a photo."""
        found = self.processor(images=to_rgb(photo), return_tensors="pt")
        pixels: Tensor = found["pixel_values"][0]
        return pixels

    def picture(self, photo: Image.Image) -> Image.Image:
        """The part of the photo that the network sees, RGB."""
        values = self(photo)
        if getattr(self.processor, "do_normalize", False):
            mean, std = (torch.tensor(getattr(self.processor, f"image_{name}"))[:, None, None]
                         for name in ("mean", "std"))  # fmt: skip
            values = values * std + mean
        pixels = (values * 255).round().clamp(0, 255).byte()
        return Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))


@contextmanager
def _others_errors(name: str) -> Iterator[None]:
    """What a hub's library raises, as a ModelError: names, networks, files, downloads."""
    try:
        yield
    except Exception as error:  # of many kinds: those of requests, json, safetensors, torch, ...
        if isinstance(error, ModelError) or is_out_of_memory(error):
            raise
        raise ModelError(
            f"{name}: its library raises {type(error).__name__}: {first_line(error)}"
        ) from error
