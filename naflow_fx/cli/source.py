"""What explains the photos of `naflow-fx explain`: a network compiled now, or an artefact."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from naflow_fx import models
from naflow_fx.artefacts import load, read
from naflow_fx.artefacts.artefact import Artefact
from naflow_fx.artefacts.metadata import preprocessing_of
from naflow_fx.cli.setup import CHOICES, SOLVER, choose, compile_model, given, open_device
from naflow_fx.errors import ArtefactError, OptionError, TargetError
from naflow_fx.explainer import Explainer
from naflow_fx.models.preprocess import Preprocessing, class_index, class_names


@dataclass(frozen=True)
class Source:
    """How photos become inputs, the words for classes, and the way to the explainer.

    preprocessing: of photos. class_names: in their order; empty where unknown. facts: what
    flow.json says of the model. make: an example input [1, 3, H, W] -> what is called.
    """

    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    facts: dict[str, Any]
    make: Callable[[Tensor], Explainer | Artefact]

    def target(self, text: str | None) -> int | None:
        """The class of a number or a name; TargetError, with the nearest names, if none."""
        if text is None:
            return None
        if self.class_names == class_names():
            return class_index(text)
        if text in self.class_names:
            return self.class_names.index(text)
        try:
            return int(text)
        except ValueError:
            known = ", ".join(self.class_names[:8]) or "this artefact tells none; give a number"
            raise TargetError(f"no class {text!r}; classes: {known}") from None


def open_source(args: argparse.Namespace) -> Source:
    """What the command line names; nothing is built or loaded yet.

    Raises:
        ModelError, ArtefactError: there is none, or it can't explain photos.
        OptionError: options that an artefact has already chosen.
    """
    return _model(args) if args.artefact is None else _artefact(args)


def _model(args: argparse.Namespace) -> Source:
    card = models.card(args.model, args.weights)

    def make(example: Tensor) -> Explainer:
        model = models.build(args.model, pretrained=args.weights is None, weights=args.weights)
        return compile_model(model.to(example.device), example, args)

    choose(args)
    weights = args.weights or next(iter(card.weights), None)
    facts = {"model": args.model, "weights": weights}
    return Source(card.preprocessing, class_names(), facts, make)


def _artefact(args: argparse.Namespace) -> Source:
    fixed = given(args, ("weights", *CHOICES, *SOLVER))
    if fixed:
        raise OptionError(f"--{', --'.join(fixed)}: the artefact was made with its own; leave it "
                          "out, or explain with --model")  # fmt: skip
    path = Path(args.artefact)
    metadata = read(path)
    if metadata.target["kind"] == "similarity":
        raise ArtefactError(f"{path}: compares two images; use it in Python: "
                            "naflow_fx.artefacts.load(path).run(query, support)")  # fmt: skip
    preprocessing = preprocessing_of(path, metadata)
    if preprocessing is None:
        raise ArtefactError(f"{path}: doesn't tell how photos become inputs; write it with "
                            "explainer.export(path, preprocessing=...)")  # fmt: skip
    facts = {**metadata.info, "artefact": path.name}
    device = open_device(args.device)
    names = metadata.class_names or ()
    return Source(preprocessing, names, facts, lambda _: load(path, device, args.trusted))
