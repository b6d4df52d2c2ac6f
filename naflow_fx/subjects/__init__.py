"""Subjects: networks with all that is needed to explain photos with them, named in one way.

A `Recipe` says what a user said, an opener (`OPENERS`) makes a `Network` of it, a `Subject` is a
network with its preprocessing and class names, from a photo to a flow.
"""

from __future__ import annotations

from dataclasses import replace
from os import PathLike, fspath
from typing import Any

from naflow_fx.subjects.api import (
    ArtefactSubject,
    ExportedNetwork,
    Subject,
    compiled_in,
    opened,
)
from naflow_fx.subjects.inputs import Words
from naflow_fx.subjects.recipe import Recipe

__all__ = [
    "ArtefactSubject",
    "ExportedNetwork",
    "Recipe",
    "Subject",
    "compiled_in",
    "opened",
    "subject",
]


def subject(
    model: str | PathLike[str] | None = None,
    *,
    weights: str | PathLike[str] | None = None,
    classes: Words | None = None,
    trusted: bool = False,
    **choices: Any,
) -> Subject:
    """A network by its name, with all that is needed to explain photos with it.

    Nothing but code that `model` and `preprocess` name is run, and no weights are fetched before
    the network is used.

    Args:
        model: a name of `nf.models.names()`; "timm/NAME"; "hf/NAME" or "hf/./FOLDER";
            "FILE.py:NAME" or "PACKAGE.MODULE:NAME", called with `model_args`; "FILE.pt2" or
            "FILE.onnx"; "FILE.toml", which holds all of it.  None: the bundled network.
        weights: a checkpoint file, the name of public weights, "none": as the network is made;
            None: the best public ones.
        classes: words for the classes in their order, class -> words, or a file: a name a line, or
            JSON.
        trusted: loads an artefact even if it can run code.
        choices: of `Recipe`: model_args, size, mean, std (numbers, or one a channel), channels,
            preprocess, output, artefact.

    Raises:
        ModelError: there is no such network, or too little is known of it.
    """
    given = {key: value for key, value in choices.items() if value is not None}
    given |= {} if weights is None else {"weights": fspath(weights)}
    for key in ("mean", "std"):
        if isinstance(given.get(key), (int, float)):
            given[key] = (given[key],)
    return opened(_recipe(model, given), classes, trusted)


def _recipe(model: str | PathLike[str] | None, given: dict[str, Any]) -> Recipe:
    """What was given, over what a file of a subject holds."""
    if model is not None and fspath(model).endswith(".toml"):
        return replace(Recipe.read(model), **given)
    return Recipe(**given) if model is None else Recipe(fspath(model), **given)
