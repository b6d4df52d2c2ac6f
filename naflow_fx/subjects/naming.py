"""From what a user says of a network to its subject."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike, fspath
from typing import Any

from naflow_fx.subjects.api import Subject
from naflow_fx.subjects.exported import ArtefactSubject
from naflow_fx.subjects.inputs import Words, class_words
from naflow_fx.subjects.openers import open_network
from naflow_fx.subjects.recipe import BUNDLED, Recipe


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
    if weights is not None:
        given["weights"] = fspath(weights)
    if classes is not None:
        file = classes if isinstance(classes, (str, PathLike)) else None
        given["classes"] = class_words(classes) if file is None else fspath(file)
    named = BUNDLED if model is None else fspath(model)
    base = Recipe.read(named) if named.endswith(".toml") else Recipe(named)
    return opened(replace(base, **given), trusted)


def opened(recipe: Recipe, trusted: bool = False, **given: Any) -> Subject:
    """The subject of a recipe; nothing is built or loaded yet.

    Args:
        recipe: what was said.
        trusted: an artefact is loaded even if it can run code.
        given: `preprocessing` and `classes` of `Subject`, instead of the recipe's.

    Raises:
        ModelError, ArtefactError: there is no such network, or it can't explain photos.
    """
    if recipe.artefact is not None:
        return ArtefactSubject(recipe, trusted, **given)
    return Subject(open_network(recipe), recipe=recipe, **given)
