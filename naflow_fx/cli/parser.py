"""The command line's parser: one file a command, in the order of its help.

No command imports torch before it runs: `naflow-fx --help` answers at once.
"""

from __future__ import annotations

import argparse
import importlib
from importlib.metadata import PackageNotFoundError, version

from naflow_fx.cli.base import FORM, Parser

__all__ = ["COMMANDS", "make_parser"]

COMMANDS = ("explain", "report", "batch", "diff", "compare", "retrieve", "few_shot", "decompose",
            "evaluate", "inspect", "export", "info", "models")  # fmt: skip
TOP_EXAMPLES = """\
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


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; `args.command` is the function of the chosen one."""
    text = "Attention maps for every layer of a trained convolutional network."
    parser = Parser(prog="naflow-fx", description=text, epilog=TOP_EXAMPLES, **FORM)
    parser.add_argument("--version", action="version", version=f"naflow-fx {_version()}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        importlib.import_module(f"naflow_fx.cli.{name}").add(commands)
    return parser


def _version() -> str:
    try:
        return version("naflow-fx")
    except PackageNotFoundError:
        return "(not installed)"
