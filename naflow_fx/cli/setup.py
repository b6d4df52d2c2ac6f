"""From command-line options to a device and a compiled explainer."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import torch

from naflow_fx.errors import OptionError
from naflow_fx.options import Inverse
from naflow_fx.subjects import ArtefactSubject, Recipe, Subject, opened

SOLVER = ("damping", "steps", "rows", "precision")
CHOICES = ("layers", "method", "reduction")


def open_device(name: str) -> torch.device:
    """The device `name`, tried with one number; OptionError if it is not to be had."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        there = "cuda" if torch.cuda.is_available() else "cpu"
        raise OptionError(f"--device {name}: not to be had on this machine; try {there}") from error
    return device


def given(args: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """Those of the options that were given and ask for something; `--layers all` doesn't."""
    found = {key: value for key in names if (value := getattr(args, key, None)) is not None}
    return {key: value for key, value in found.items() if (key, value) != ("layers", ["all"])}


def open_subject(args: argparse.Namespace) -> Subject:
    """The network that the command line names; nothing is built or loaded yet.

    Raises:
        ModelError, ArtefactError: there is none, or it can't explain photos.
        OptionError: options that an artefact has already chosen.
    """
    found = opened(recipe_of(args), trusted=getattr(args, "trusted", False))
    fixed = given(args, (*CHOICES, *SOLVER)) if isinstance(found, ArtefactSubject) else {}
    if fixed:
        raise OptionError(f"--{', --'.join(fixed)}: the artefact was made with its own; leave it "
                          "out, or explain with --model")  # fmt: skip
    return found


def recipe_of(args: argparse.Namespace) -> Recipe:
    """What the command line says of the network, over what --subject says."""
    base = Recipe() if args.subject is None else Recipe.read(args.subject)
    said: dict[str, Any] = given(args, [f.name for f in fields(Recipe)])
    if "model" in said:  # another network: the file's weights are not its own
        base = replace(base, artefact=None, weights=None, model_args={})
    for key, kind in (("mean", tuple), ("std", tuple), ("model_args", dict)):
        if key in said:
            said[key] = kind(said[key])
    return replace(base, **said)


def choose(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `naflow_fx.compile`: those that were given.  OptionError for bad values."""
    options = given(args, CHOICES)
    solver = given(args, SOLVER)
    if solver:
        options["inverse"] = Inverse(**solver)
    return options
