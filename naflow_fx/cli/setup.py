"""From command-line options to a device and a compiled explainer."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import torch

from naflow_fx.errors import OptionError
from naflow_fx.options import Inverse

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
    found = {key: getattr(args, key) for key in names if getattr(args, key) is not None}
    return {key: value for key, value in found.items() if (key, value) != ("layers", ["all"])}


def choose(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `naflow_fx.compile`: those that were given.  OptionError for bad values."""
    options = given(args, CHOICES)
    solver = given(args, SOLVER)
    if solver:
        options["inverse"] = Inverse(**solver)
    return options
