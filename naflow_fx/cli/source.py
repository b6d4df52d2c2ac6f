"""What explains the photos of `naflow-fx explain`: a network compiled now, or an artefact."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from naflow_fx.artefacts import load, read
from naflow_fx.artefacts.artefact import Artefact
from naflow_fx.artefacts.metadata import preprocessing_of
from naflow_fx.cli.setup import CHOICES, SOLVER, choose, given, open_device
from naflow_fx.errors import ArtefactError, OptionError
from naflow_fx.explainer import Explainer
from naflow_fx.models.preprocess import Preprocessing
from naflow_fx.subject import Subject, class_of


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
        return class_of(text, self.class_names)


def open_source(args: argparse.Namespace) -> Source:
    """What the command line names; nothing is built or loaded yet.

    Raises:
        ModelError, ArtefactError: there is none, or it can't explain photos.
        OptionError: options that an artefact has already chosen.
    """
    return _model(args) if args.artefact is None else _artefact(args)


def _model(args: argparse.Namespace) -> Source:
    subject, options = Subject(args.model, args.weights), choose(args)
    names = subject.class_names
    return Source(subject.preprocessing, names, subject.facts,
                  lambda example: subject.explainer(example, **options))  # fmt: skip


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
