"""Several targets and methods in one command: what each row or column is, and what to call it."""

from __future__ import annotations

import argparse
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from naflow_fx.cli.base import Command, option

PREDICTED = "predicted"  # the word for the predicted class, where it stands beside others


@dataclass(frozen=True)
class Variant:
    """One explanation of a photo: a target (None: the predicted) by a method (None: naflow)."""

    target: str | None = None
    method: str | None = None

    @property
    def words(self) -> dict[str, str]:
        """What a person would call its parts."""
        return {"target": self.target or PREDICTED, "method": self.method or "naflow"}


def add_targets(parser: argparse.ArgumentParser, default: str, more: str = "") -> None:
    """--target, of one or several classes; more: other words that it takes, with their meaning."""
    text = f"""class to explain, a number or a name (default: {default}){more}; several, of which
    one may be {PREDICTED!r}, stand beside each other; of other outputs segment:CLASS, box:0 (of a
    detector), binary:0 or binary:1, number:0 (of a regression)"""
    option(parser, "--target CLASS|NAME...", text)


def variants(args: argparse.Namespace) -> list[Variant]:
    """Every target by every method, targets of one method together; each once."""
    given = getattr(args, "target", None) or [None]
    targets = [None if one == PREDICTED else one for one in given]
    found = [Variant(t, m) for m in args.methods or [args.method] for t in targets]
    return list(dict.fromkeys(found))


def of_variant(args: argparse.Namespace, one: Variant) -> argparse.Namespace:
    """The command line of one variant alone."""
    return argparse.Namespace(**{**vars(args), "target": one.target, "method": one.method,
                                 "methods": None})  # fmt: skip


def each(args: argparse.Namespace, run: Command) -> None:
    """Runs a command for every variant; of several, each writes into a folder of its own.

    `results` is the folder of all of them, which holds no photos to read.
    """
    chosen = variants(args)
    for name, one in zip(names_of([v.words for v in chosen]), chosen, strict=True):
        alone = of_variant(args, one)
        alone.results = args.out
        if len(chosen) > 1:
            alone.out = str(Path(args.out, folder_of(name)))
        run(alone)


def folder_of(name: str) -> str:
    """The folder of what is written of one variant, below that of all."""
    return re.sub(r"[^A-Za-z0-9_.\-]+", "_", name).strip("._") or "class"


def names_of(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Names by what differs between the rows; by the first part of all where nothing does.

    rows: of the same keys.
    """
    keys = [key for key in rows[0] if len({row[key] for row in rows}) > 1] or list(rows[0])[:1]
    names = (", ".join(filter(None, (row[key] for key in keys))) for row in rows)
    return numbered(name or "default" for name in names)


def numbered(names: Iterable[str]) -> list[str]:
    """The names, a number behind those that have been there: "cat", "cat (2)"."""
    made: list[str] = []
    for name in names:
        several = (f"{name} ({number})" for number in itertools.count(2))
        made.append(next(one for one in itertools.chain([name], several) if one not in made))
    return made
