"""Recipe: what a user says of a network, as plain data, and as a file to keep."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from naflow_fx.artefacts.plain_data import made
from naflow_fx.errors import ModelError
from naflow_fx.files import write

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

BUNDLED = "efficientnet_lite0"
AS_MADE = "none"  # as weights: those that the network is made with
FILES = ("model", "weights", "classes", "preprocess", "artefact")  # entries that can name files


@dataclass(frozen=True)
class Recipe:
    """How to make a subject; entries that are None are taken from what the model's maker tells.

    One number for all channels is kept as (number,).

    Attributes:
        model: a name of `models.names()`, "timm/NAME", "hf/NAME" or "hf/./FOLDER",
            "FILE.py:NAME", "PACKAGE.MODULE:NAME", "FILE.pt2" or "FILE.onnx".
        weights: a checkpoint file, the name of public weights, or "none": as the network is made.
        model_args: what the network's maker is called with.
        classes: words for the classes in their order, or the file that has them.
        size: pixels of the input's side.
        mean, std: of the channels (or one for all), of pixels in 0..1.
        channels: 3, or 1 for grey photos.
        preprocess: "FILE.py:FUNCTION", photo (RGB) -> [C, H, W], instead of the four.
        output: of a network that gives several, the key or index of the one that is explained.
        artefact: a file that `naflow-fx export` wrote, instead of model and weights.
    """

    model: str = BUNDLED
    weights: str | None = None
    model_args: dict[str, Any] = field(default_factory=dict)
    classes: str | tuple[str, ...] | None = None
    size: int | None = None
    mean: float | tuple[float, ...] | None = None
    std: float | tuple[float, ...] | None = None
    channels: int | None = None
    preprocess: str | None = None
    output: str | int | None = None
    artefact: str | None = None

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            given = getattr(self, name)
            if given is not None:
                numbers = (given,) if isinstance(given, (int, float)) else tuple(given)
                object.__setattr__(self, name, numbers)

    @property
    def named_weights(self) -> str | None:
        """The weights that have a file or a name; None: the best public ones, or as made."""
        return None if self.weights == AS_MADE else self.weights

    def to_json(self) -> dict[str, Any]:
        """The entries that were given, as plain data."""
        entries = dataclasses.asdict(self)
        return {k: v for k, v in entries.items() if v is not None and v != {}}

    @staticmethod
    def read(path: str | os.PathLike[str]) -> Recipe:
        """The recipe in a TOML file; names of files in it are seen from its folder.

        Raises:
            ModelError: no such file, not TOML, or not the entries of a recipe.
        """
        try:
            entries = tomllib.loads(Path(path).read_text("utf-8"))
            return made(Recipe, {k: _moved(k, v, Path(path).parent) for k, v in entries.items()})
        except OSError as error:
            raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
        except ValueError as error:  # tomllib's is one
            raise ModelError(f"{path}: not a subject ({error})") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it as TOML; names of files are written as seen from its folder."""
        folder = Path(path).resolve().parent
        entries = {k: _seen_from(k, v, folder) for k, v in self.to_json().items()}
        write(Path(path), "".join(f"{key} = {_toml(value)}\n" for key, value in entries.items()))


def _file_of(key: str, value: Any) -> tuple[str, str]:
    """The part of an entry that can be a file's name, and what stands behind it."""
    if key not in FILES or not isinstance(value, str):
        return "", ""
    file, colon, name = value.rpartition(":")
    if file.endswith(".py"):
        return file, colon + name
    named = key != "model" or value.endswith((".py", ".pt2", ".onnx"))
    return (value.removeprefix("hf/") if named or value.startswith("hf/") else "", "")


def _moved(key: str, value: Any, folder: Path) -> Any:
    """An entry whose file lies beside the recipe, named from here."""
    file, rest = _file_of(key, value)
    there = folder / file
    if not file or not there.exists():
        return value
    return f"{'hf/' if value.startswith('hf/') else ''}{there}{rest}"


def _seen_from(key: str, value: Any, folder: Path) -> Any:
    """An entry whose file is there, named from a folder."""
    file, rest = _file_of(key, value)
    if not file or not Path(file).exists():
        return value
    named = os.path.relpath(Path(file).resolve(), folder)
    return f"hf/./{named}" if value.startswith("hf/") else f"{named}{rest}"


def _toml(value: Any) -> str:
    """Plain data in TOML: JSON's strings, numbers and lists are TOML's."""
    if isinstance(value, dict):
        pairs = (f"{json.dumps(key)} = {_toml(inner)}" for key, inner in value.items())
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    if value is None:
        raise ModelError("model_args: None can't be written as TOML; leave the argument out")
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
