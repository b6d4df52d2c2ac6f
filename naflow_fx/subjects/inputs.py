"""How photos become inputs, and what the classes are called: what is known, and what is given."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image

from naflow_fx.errors import ModelError, PhotoError
from naflow_fx.models.preprocess import Preprocessing
from naflow_fx.subjects.code import Function
from naflow_fx.subjects.network import Prepare
from naflow_fx.subjects.recipe import Recipe
from naflow_fx.view.photos import as_photos

SETTINGS = ("size", "mean", "std", "channels")
SHARPER = 2.0  # pictures have at most this many times the network's resolution


def prepared(known: Prepare | None, recipe: Recipe) -> Prepare | None:
    """How photos become inputs; what the recipe gives goes before what is known.

    Raises:
        ModelError: what is given isn't enough, or doesn't go together.
    """
    name = recipe.artefact or recipe.model
    given = {key: getattr(recipe, key) for key in SETTINGS if getattr(recipe, key) is not None}
    if recipe.preprocess is not None:
        if given:
            raise ModelError(f"preprocess and {', '.join(given)}: give the function or the numbers")
        return Function(recipe.preprocess)
    if not given:
        return known
    base = known if isinstance(known, Preprocessing) else None
    lacking = [key for key in SETTINGS[:3] if base is None and key not in given]
    if lacking:
        raise asked(name, f"; {', '.join(lacking)} is missing")
    try:
        return _of_numbers(base, recipe)
    except PhotoError as error:
        raise ModelError(f"{name}: {error}") from error


def asked(name: str, missing: str = "") -> ModelError:
    """The error where nobody knows how photos become inputs."""
    return ModelError(
        f"{name}: how photos become inputs isn't known; give its size, mean and std "
        "of pixels in 0..1, such as --size 96 --mean 0.5 --std 0.25 (and --channels "
        "1 for grey photos), or --preprocess file.py:function; in Python size=, "
        f"mean=, std=, channels=, preprocess={missing}"
    )


def _of_numbers(base: Preprocessing | None, recipe: Recipe) -> Preprocessing:
    """The base's numbers, those of the recipe in their place."""
    size = recipe.size
    found = base or Preprocessing(resize=size or 1, crop=size or 1)
    scale = found.scale * 255  # of values in 0..1

    def values_of(name: str) -> Sequence[float]:
        given = getattr(recipe, name)
        return getattr(found, name) if given is None else [value * scale for value in given]

    mean, std = values_of("mean"), values_of("std")
    several = [len(values) for values in (mean, std) if len(values) > 1]
    count = recipe.channels or max(several, default=len(found.mean))
    found = dataclasses.replace(found, mean=_each(mean, count), std=_each(std, count))
    return found if size is None else scaled(found, size)


def _each(values: Sequence[float], count: int) -> tuple[float, ...]:
    """The values of `count` channels: as they are, or one for all."""
    return (values[0],) * count if len(set(values)) == 1 else tuple(values)


def scaled(preprocessing: Preprocessing, size: int) -> Preprocessing:
    """The same part of the photo at another number of pixels."""
    factor, old = size / preprocessing.crop, preprocessing.resize
    sides = [max(size, round(side * factor)) for side in ([old] if isinstance(old, int) else old)]
    resize: Any = sides[0] if isinstance(old, int) else tuple(sides)
    return dataclasses.replace(preprocessing, resize=resize, crop=size)


def seen(prepare: Prepare, photo: Image.Image) -> Image.Image:
    """The part of the photo that the network sees, as sharp as the photo has it (within limits).

    Of a function nothing but the input is known: that, from its smallest value to its largest.
    """
    if not isinstance(prepare, Preprocessing):
        picture: Callable[[Image.Image], Image.Image] | None = getattr(prepare, "picture", None)
        if picture is not None:
            return picture(photo)
        return Image.fromarray(as_photos([prepare(photo)], 1)[0])
    size = prepare.resize
    if not isinstance(size, int):
        return prepare.picture(photo)
    factor = min(max(1.0, min(photo.size) / size), SHARPER)
    larger, part = round(size * factor), round(prepare.crop * factor)
    return dataclasses.replace(prepare, resize=larger, crop=part).picture(photo)


Words: TypeAlias = str | PathLike[str] | Sequence[str] | Mapping[int, str]


def class_words(given: Words) -> tuple[str, ...]:
    """Words for the classes in their order.

    Args:
        given: the words, class -> words, or a file: a name a line, or JSON: a list or an object,
            number -> name.

    Raises:
        ModelError: no such file, or the numbers are not those from 0 on.
    """
    where = "classes"
    found: Any = given
    if isinstance(given, (str, PathLike)):
        where, found = str(given), _read(Path(given))
    if isinstance(found, Mapping):
        try:
            numbered = {int(number): name for number, name in found.items()}
        except (TypeError, ValueError) as error:
            raise ModelError(f"{where}: wanted number -> name ({error})") from error
        if sorted(numbered) != list(range(len(numbered))):
            raise ModelError(f"{where}: wanted a name for each of the classes 0 to "
                             f"{len(numbered) - 1}, got {sorted(numbered)[:8]}")  # fmt: skip
        found = [numbered[i] for i in range(len(numbered))]
    if not isinstance(found, (list, tuple)) or not all(isinstance(name, str) for name in found):
        raise ModelError(f"{where}: wanted names, got {str(found)[:80]}")
    return tuple(found)


def _read(path: Path) -> Any:
    """What a file of class names holds."""
    try:
        text = path.read_text("utf-8-sig")
        return json.loads(text) if path.suffix == ".json" else text.rstrip().splitlines()
    except OSError as error:
        raise ModelError(f"{path}: no names of classes there ({error.strerror})") from error
    except ValueError as error:
        raise ModelError(f"{path}: neither a name a line in UTF-8 nor JSON ({error})") from error
