"""What commands do with photos and the folders that they write."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from naflow_fx.view.files import staging
from naflow_fx.view.record import RECORD
from naflow_fx.view.terminal import printable

NO_MATTER = ("command", "photo", "photos", "query", "support", "out", "results", "device",
             "trusted", "verbose", "alpha", "colormap", "cells", "save_arrays")  # fmt: skip


def shown(photo: Path) -> str:
    """The file's name as text that can be printed and stored, whatever its bytes are."""
    return printable(os.fsencode(photo.name).decode("utf-8", "replace"))


def question(args: argparse.Namespace, photos: Sequence[Path]) -> dict[str, Any]:
    """What is asked of photos, as plain data: what they hold, and the options that decide."""
    given = {name: value for name, value in vars(args).items() if name not in NO_MATTER}
    digests = [hashlib.sha256(photo.read_bytes()).hexdigest() for photo in photos]
    found: dict[str, Any] = json.loads(json.dumps({"photos": digests, **given}))
    return found


def places(
    names: Sequence[str], out: Path, questions: Sequence[dict[str, Any]], record: str = RECORD
) -> list[Path]:
    """A folder for each question: its name, numbered where that has the answer to another one.

    A folder's question is the entry "question" of its `record`, or of its folders' records.
    """
    taken: set[str] = set()
    found: list[Path] = []
    for stem, asked in zip(names, questions, strict=True):
        name, number = stem, 1
        while name.casefold() in taken or _other(out / name, asked, record):
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        found.append(out / name)
    return found


def _other(place: Path, asked: dict[str, Any], record: str) -> bool:
    """Whether a folder holds the answer to another question."""
    written = [*place.glob(record), *place.glob(f"*/{record}")]
    try:
        return any(json.loads(f.read_text("utf-8")).get("question") != asked for f in written)
    except (OSError, ValueError, AttributeError):
        return True


def check_writable(place: Path) -> None:
    """Nothing if files can be made at `place`; else the FlowError or OSError that tells why not."""
    with staging(place) as stage:
        stage.mkdir()
