"""Several targets and methods in one command: what each row or column is, and what to call it."""

from __future__ import annotations

import argparse
import functools
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from naflow_fx.cli.parser import Command, option

PREDICTED = "predicted"  # the word for the predicted class, where it stands beside others


def add_targets(parser: argparse.ArgumentParser, default: str, more: str = "") -> None:
    """--target, of one or several classes; more: other words that it takes, with their meaning."""
    text = f"""class to explain, a number or a name (default: {default}){more}; several, of which
    one may be {PREDICTED!r}, stand beside each other; of other outputs segment:CLASS, box:0 (of a
    detector), binary:0 or binary:1, number:0 (of a regression)"""
    option(parser, "--target CLASS|NAME...", text)


def variants(args: argparse.Namespace) -> list[argparse.Namespace]:
    """The command line of every target by every method alone; those of one method together.

    Each once; its target is None for the predicted class, its method None for naflow.
    """
    given = getattr(args, "target", None) or [None]
    targets = dict.fromkeys(None if one == PREDICTED else one for one in given)
    methods = dict.fromkeys(args.methods or [args.method])
    return [
        argparse.Namespace(**{**vars(args), "target": target, "method": method, "methods": None})
        for method in methods
        for target in targets
    ]


def words(one: argparse.Namespace) -> dict[str, str]:
    """What a person would call the parts of a variant."""
    return {"target": one.target or PREDICTED, "method": one.method or "naflow"}


def each(run: Command) -> Command:
    """A command of one variant as one of all; of several, each writes into a folder of its own.

    `results` is the folder of all of them, which holds no photos to read.
    """

    @functools.wraps(run)
    def run_each(args: argparse.Namespace) -> None:
        chosen = variants(args)
        for name, alone in zip(names_of(list(map(words, chosen))), chosen, strict=True):
            alone.results = args.out
            if len(chosen) > 1:
                alone.out = str(Path(args.out, folder_of(name)))
            run(alone)

    return run_each


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
