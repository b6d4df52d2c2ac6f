"""Compare two batch runs: where do the networks part, on which photos most.

Photos are paired by what their files hold, layers by relative depth. Agreement is the rank
correlation of the stored maps, 1 alike, 0 unrelated; spread is their entropy; docs/statistics.md.

examples:
  naflow-fx batch photos/ --out before --model resnet50
  naflow-fx batch photos/ --out after --model resnet50 --weights my_training.pt
  naflow-fx diff before after
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from naflow_fx.cli.parser import option, whole
from naflow_fx.view.terminal import say

if TYPE_CHECKING:
    from naflow_fx.dataset.diff import Difference


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    option(parser, "first RESULTS_A", "a folder of `naflow-fx batch`")
    option(parser, "second RESULTS_B", "another one")
    option(parser, "--photos N", "photos that are listed, those that agree least first", whole, 10)


def diff(args: argparse.Namespace) -> None:
    """Print the comparison; DatasetError if there is nothing to compare."""
    from naflow_fx.dataset.diff import diff as compared

    found = compared(args.first, args.second)
    for letter, run in zip("AB", found.runs, strict=True):
        say(f"{letter}: {run.path}, {run.model}, {len(run)} photos")
    count = len(found.ids)
    say(f"{count} photos in both; predictions differ on {found.differ}")
    say("")
    say(str(found.table))
    _tell_partings(found, args.photos)


def _tell_partings(found: Difference, count: int) -> None:
    from naflow_fx.errors import table
    from naflow_fx.view.record import class_words

    partings = found.partings(count)
    if not partings:
        return
    rows = [["photo", "agreement", "least", "at", "A predicts", "B predicts"]]
    for one in partings:
        words = ["-" if index < 0 else class_words(run.class_names, index)
                 for run, index in zip(found.runs, one.predictions, strict=True)]  # fmt: skip
        rows.append([one.id, f"{one.agreement:.3f}", f"{one.least:.3f}", one.layer, *words])
    say("\nphotos that agree least:")
    say(table(rows, indent=""))
