"""From command-line options to photos, the folders that are written, a device and a network."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from naflow_fx.cli.options import SHEET
from naflow_fx.errors import OptionError
from naflow_fx.files import staging
from naflow_fx.options import Inverse
from naflow_fx.selection import evenly
from naflow_fx.view.terminal import printable

if TYPE_CHECKING:
    from PIL import Image

    from naflow_fx.subjects import Subject

SOLVER = ("damping", "steps", "rows", "precision")
CHOICES = ("layers", "method", "reduction")
NO_MATTER = ("command", "photo", "photos", "query", "support", "out", "results", "device",
             "trusted", "verbose", "alpha", "colormap", "cells", "save_arrays")  # fmt: skip


def shown(photo: Path) -> str:
    """The file's name as text that can be printed and stored, whatever its bytes are."""
    return printable(os.fsencode(photo.name).decode("utf-8", "replace"))


def facts_of(photo: Path, image: Image.Image) -> dict[str, Any]:
    """What records say of a photo: its file, what it holds, its height and width."""
    digest = hashlib.sha256(photo.read_bytes()).hexdigest()
    return {"file": shown(photo), "sha256": digest, "size": [image.height, image.width]}


def question(args: argparse.Namespace, *photos: Path) -> dict[str, Any]:
    """What is asked of photos, as plain data: what they hold, and the options that decide."""
    given = {name: value for name, value in vars(args).items() if name not in NO_MATTER}
    digests = [hashlib.sha256(photo.read_bytes()).hexdigest() for photo in photos]
    found: dict[str, Any] = json.loads(json.dumps({"photos": digests, **given}))
    return found


def places(
    args: argparse.Namespace, asked: Iterable[tuple[Path, ...]], record: str = "flow.json"
) -> list[Path]:
    """A folder in --out for the photos of each question, of their names.

    Numbered where that has the answer to another question, the entry "question" of the file
    `record` in it, or in its folders.

    Raises:
        PhotoError: a photo can't be read.  FlowError, OSError: a folder can't be written.
    """
    from naflow_fx.models.preprocess import open_photo

    found: dict[str, Path] = {}
    for photos in asked:
        for photo in photos:
            open_photo(photo)
        stem = name = "-".join(photo.stem for photo in photos)
        text, number = question(args, *photos), 1
        while name.casefold() in found or _other(Path(args.out, name), text, record):
            number += 1
            name = f"{stem}-{number}"
        found[name.casefold()] = Path(args.out, name)
        check_writable(found[name.casefold()])
    return list(found.values())


def _other(place: Path, asked: dict[str, Any], record: str) -> bool:
    """Whether a folder holds the answer to another question."""
    written = [*place.glob(record), *place.glob(f"*/{record}")]
    try:
        return any(json.loads(f.read_text("utf-8")).get("question") != asked for f in written)
    except (OSError, ValueError, AttributeError):
        return True


def check_file(out: str) -> Path:
    """The file of --out, if it can be written; OptionError, FlowError or OSError if not."""
    path = Path(out)
    if path.is_dir():
        raise OptionError(f"--out {path}: is a folder; give the name of a file")
    check_writable(path.parent / f".{path.name}")
    return path


def check_writable(place: Path) -> None:
    """Nothing if files can be made at `place`; else the FlowError or OSError that tells why not."""
    with staging(place) as stage:
        stage.mkdir()


def drawn(args: argparse.Namespace, layers: Sequence[str]) -> list[str]:
    """Those of the layers that are drawn: all that --layers asks for, else a few of them."""
    return list(layers) if args.layers else evenly(layers, SHEET)


def given(args: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """Those of the options that were given and ask for something; `--layers all` doesn't."""
    found = {key: value for key in names if (value := getattr(args, key, None)) is not None}
    return {key: value for key, value in found.items() if (key, value) != ("layers", ["all"])}


def open_subject(args: argparse.Namespace) -> Subject:
    """The network that the command line names; nothing is built or loaded yet.

    What the command line says goes before what --subject says.

    Raises:
        ModelError, ArtefactError: there is none, or it can't explain photos.
        OptionError: options that an artefact has already chosen.
    """
    from naflow_fx.subjects import ArtefactSubject, Recipe, opened

    base = Recipe() if args.subject is None else Recipe.read(args.subject)
    said: dict[str, Any] = given(args, [f.name for f in fields(Recipe)])
    if "model" in said:  # another network: the file's weights are not its own
        base = replace(base, artefact=None, weights=None, model_args={})
    if "model_args" in said:
        said["model_args"] = dict(said["model_args"])
    found = opened(replace(base, **said), trusted=getattr(args, "trusted", False))
    fixed = given(args, (*CHOICES, *SOLVER))
    if getattr(args, "compile", False):
        fixed["compile"] = True
    if fixed and isinstance(found, ArtefactSubject):
        raise OptionError(f"--{', --'.join(fixed)}: the artefact was made with its own; leave it "
                          "out, or explain with --model")  # fmt: skip
    return found


def choose(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `naflow_fx.compile`: those that were given.  OptionError for bad values."""
    options = given(args, CHOICES)
    if solver := given(args, SOLVER):
        options["inverse"] = Inverse(**solver)
    return options
