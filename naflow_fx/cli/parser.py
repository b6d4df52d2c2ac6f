"""Attention maps for every layer of a trained convolutional network.

examples:
  naflow-fx explain cat.jpg                      maps of every layer, bundled model, ./naflow_out
  naflow-fx explain *.jpg --target espresso      why espresso? for many photos
  naflow-fx report cat.jpg --models A B C        models side by side, a page for the browser
  naflow-fx batch photos/ --out results          thousands of photos into tables, resumable
  naflow-fx diff results other-results           two of these: where do the networks part?
  naflow-fx compare cat.jpg other-cat.jpg        how much are they alike, and where?
  naflow-fx retrieve cat.jpg photos/             the photos of a folder most alike, and why
  naflow-fx evaluate                             how good are the maps? photos with boxes
  naflow-fx decompose cat.jpg                    which channels the decision rests on, as a tree
  naflow-fx inspect --model resnet50             which layers there are, and how each is inverted
  naflow-fx models                               names for --model
  naflow-fx export --format onnx --out x.onnx    network and explainer as one file, see `info`
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, TypeAlias

from naflow_fx import __version__
from naflow_fx.view.terminal import printable

COMMANDS = ("explain", "report", "batch", "diff", "compare", "retrieve", "few_shot", "decompose",
            "evaluate", "inspect", "export", "info", "models")  # fmt: skip
Options: TypeAlias = "argparse.ArgumentParser | argparse._ArgumentGroup"
Command: TypeAlias = Callable[[argparse.Namespace], None]
FILES = (".html", ".json", ".png", ".jpg", ".svg", ".pdf", ".pt2", ".onnx", ".parquet", ".csv")


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; `args.command` is the function of the chosen one.

    A file a command; its docstring, and this file's, is what `--help` prints. None imports torch
    before it runs: `naflow-fx --help` answers at once.
    """
    parser = Parser(prog="naflow-fx", **_help(__doc__))
    parser.add_argument("--version", action="version", version=f"naflow-fx {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        file = importlib.import_module(f"naflow_fx.cli.{name}")
        texts = _help(file.__doc__)
        line = texts["description"][:1].lower() + texts["description"][1:].removesuffix(".")
        one = commands.add_parser(name.replace("_", "-"), help=line, **texts)
        one.set_defaults(command=getattr(file, name))
        file.add(one)
        one.usage = " ".join([one.prog, *_needed(one), "[options]"])
    return parser


def _help(text: str | None) -> dict[str, Any]:
    """A docstring as options of a parser: its first line, and what follows."""
    first, _, more = (text or "").partition("\n\n")  # none where Python leaves docstrings out
    form = argparse.RawDescriptionHelpFormatter
    return {"description": first, "epilog": more, "formatter_class": form, "allow_abbrev": False}


def _needed(parser: argparse.ArgumentParser) -> Iterator[str]:
    """What has to be given, as the line of usage shows it."""
    for action in parser._actions:
        if action.required:
            value = action.metavar or action.dest.upper()
            yield " ".join([*action.option_strings, f"{value}{'...' if action.nargs else ''}"])


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, as all errors of this program."""

    words: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """What argparse does, its words kept for `error`."""
        self.words = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Print the message and where help is, and leave with exit code 2."""
        if "required" in message and (taken := self._taken()) is not None:
            message += f"; {taken[0]} took {taken[1]}: give photos before the options"
        self.exit(2, printable(f"naflow-fx: error: {message} (see `{self.prog} --help`)\n"))

    def _taken(self) -> tuple[str, str] | None:
        """An option of several values and the file that stands behind it."""
        several = {name for action in self._actions if action.nargs in ("+", "*")
                   for name in action.option_strings}  # fmt: skip
        option = None
        for word in self.words:
            option = word if word.startswith("--") else option
            if option in several and word != option and os.path.isfile(word):
                return option, word
        return None


def option(
    to: Options, words: str, text: str, kind: Any = None, default: Any = None, **more: Any
) -> None:
    """Add what a person can give.

    Args:
        to: a parser, or a group of it.
        words: its name and what is given: "photos PHOTO...", an operand, here several;
            "--size PIXELS", an option; "--quiet", a switch.
        text: of the help; "(default: ...)" is added where it doesn't say so.
        kind: what turns a word into a value, or the words that there are.
        default: where nothing is given.
        more: of `argparse`.
    """
    name, _, value = words.partition(" ")
    if default is not None and "(default" not in text:
        text = f"{text} (default: %(default)s)".strip()
    if name.startswith("-"):
        more["default"] = default
    if value:
        more["metavar"] = value.removesuffix("...")
    if value.endswith("..."):
        more.setdefault("nargs", "+")
    if isinstance(kind, tuple):
        more["choices"] = kind
    elif kind is not None:
        more["type"] = kind
    elif not value:
        more.update(action="store_true", default=False)
    to.add_argument(name, help=text, **more)


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1, got {text}")
    return value


def count(text: str, least: int = 1) -> int:
    """A number of things, 1 or more."""
    value = int(text)
    if value < least:
        raise argparse.ArgumentTypeError(f"must be {least} or more, got {text}")
    return value


def whole(text: str) -> int:
    """A number of things, 0 or more."""
    return count(text, least=0)


def pair(text: str) -> tuple[str, Any]:
    """NAME=VALUE; the value as Python writes it, or else as text."""
    name, sign, value = text.partition("=")
    if not sign or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"wanted NAME=VALUE, got {text}")
    try:
        found = ast.literal_eval(value)
        json.dumps(found)  # records and files of subjects can hold it
        return name, found
    except (ValueError, SyntaxError):
        return name, value
    except TypeError as error:
        raise argparse.ArgumentTypeError(f"{text}: wanted numbers, texts, lists") from error


def key(text: str) -> str | int:
    """The key of an entry, or its number."""
    return int(text) if text.lstrip("-").isdecimal() else text


def named(text: str) -> str:
    """The name of a file that is written."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; give a name")
    return text


def folder(text: str) -> str:
    """The name of a folder that is written to, which is none that a file would have."""
    ending = os.path.splitext(text)[1].lower()
    if ending in FILES and not os.path.exists(text):
        raise argparse.ArgumentTypeError(f"{text}: looks like a file; wanted the name of a folder")
    return named(text)
