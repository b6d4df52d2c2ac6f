"""Networks and preprocessing that a user wrote: `file.py:Name`, `package.module:name`."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from PIL import Image
from torch import Tensor, nn

from naflow_fx.errors import ModelError, first_line, is_out_of_memory
from naflow_fx.models.unpickle import check_readable
from naflow_fx.subjects.network import Network, with_weights
from naflow_fx.subjects.recipe import Recipe


def open_code(recipe: Recipe) -> Network:
    """A class or function of the user's that makes the network when called."""
    make = named(recipe.model)
    _check_arguments(make, recipe)
    place, _, name = recipe.model.rpartition(":")

    def build(fetched: bool) -> nn.Module:
        with _users_code(place):
            found = make(**recipe.model_args)
        if not isinstance(found, nn.Module):
            raise ModelError(
                f"{recipe.model}: gave a {type(found).__name__}; wanted a torch.nn.Module"
            )
        return with_weights(found, recipe)

    return Network(name, build, weights=recipe.named_weights or "as made")


def named(reference: str) -> Callable[..., Any]:
    """What `file.py:name` or `package.module:name` means; the module is run.

    Raises:
        ModelError: no such file or module, an error in it, or no such name, with those there are.
    """
    place, _, name = reference.rpartition(":") if ":" in reference else (reference, "", "")
    module = _of_file(Path(place)) if place.endswith(".py") else _of_package(place)
    found: Any = module
    for part in name.split(".") if name else ():
        found = getattr(found, part, None)
    if not name or not callable(found):
        there = ", ".join(_makers(module))
        example = next(iter(_makers(module)), "NAME")
        raise ModelError(f"{place}: no class or function {name or '(none named)'} in it, but "
                         f"{there or 'none at all'}; give {place}:{example}")  # fmt: skip
    made: Callable[..., Any] = found
    return made


def _makers(module: ModuleType) -> list[str]:
    """Names of the networks and functions that a module defines, in its order."""
    return [
        name
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__
        and (inspect.isfunction(value) or (inspect.isclass(value) and issubclass(value, nn.Module)))
    ]


def _of_file(path: Path) -> ModuleType:
    """A Python file as a module; what lies beside it can be imported by it."""
    check_readable(path)
    name = "_user_" + re.sub(r"\W", "_", str(path.resolve()))  # one a file; shadows no package
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    with _users_code(str(path)):
        spec.loader.exec_module(module)
    return module


def _of_package(name: str) -> ModuleType:
    with _users_code(name):
        return importlib.import_module(name)


@contextmanager
def _users_code(place: str) -> Iterator[None]:
    """Modules are looked for in a file's folder first, as of a script, a package's in this one.

    Raises:
        ModelError: for any error of the user's code; names it and its line.
    """
    folder = str(Path(place).resolve().parent if place.endswith(".py") else Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    except Exception as error:  # anything that a user's code raises
        if isinstance(error, ModelError) or is_out_of_memory(error):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        file = Path(place).name
        lines = [f" (line {f.lineno})" for f in frames if f.filename.endswith(file)]
        raise ModelError(f"{place}{lines[-1] if lines else ''} raises {type(error).__name__}: "
                         f"{first_line(error)}") from error  # fmt: skip
    finally:
        sys.path.remove(folder)


def _check_arguments(make: Callable[..., Any], recipe: Recipe) -> None:
    """ModelError if the maker can't be called with the recipe's arguments."""
    try:
        signature = inspect.signature(make)
    except (TypeError, ValueError):  # nothing is known of it, as of some of C's
        return
    try:
        signature.bind(**recipe.model_args)
    except TypeError as error:
        raise ModelError(f"{recipe.model}{signature}: {error}; give --model-args width=8 and "
                         "the like, in Python model_args=") from error  # fmt: skip


@dataclass(frozen=True)
class Function:
    """A user's preprocessing by its reference, photo (RGB) -> [C, H, W], that can be pickled."""

    reference: str

    def __post_init__(self) -> None:
        _function(self.reference)

    def __call__(self, photo: Image.Image) -> Tensor:
        """The input of a photo.

        Raises:
            ModelError: the function raises, or gives something else.
        """
        with _users_code(self.reference.rpartition(":")[0]):
            found = _function(self.reference)(photo)
        if not isinstance(found, Tensor) or found.ndim != 3 or not found.is_floating_point():
            got = f"{found.dtype} {list(found.shape)}" if isinstance(found, Tensor) else type(found)
            raise ModelError(f"{self.reference}: gave {got}; wanted a float tensor [C, H, W]")
        return found


_function = cache(named)
