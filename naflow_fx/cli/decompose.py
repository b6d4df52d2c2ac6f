"""`naflow-fx decompose`: the channels that a decision about a photo rests on, as a tree."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

import naflow_fx
from naflow_fx.cli.base import Commands, command, count, news_aside
from naflow_fx.cli.options import add_model_options, add_place_options
from naflow_fx.cli.variants import PREDICTED, add_targets, folder_of
from naflow_fx.view.progress import progress
from naflow_fx.view.terminal import say

if TYPE_CHECKING:
    from naflow_fx.decomposition import Decomposition

TEXT = "which channels does a decision rest on? a tree, layer by layer"
EXAMPLES = """\
what is written:
  DIR/<photo>/decomposition.html   the tree, to unfold: maps, patches, shares; needs no network
  DIR/<photo>/decomposition.json   the same as numbers, maps included
Several --target: a folder each with these files in DIR/<photo>.

Every path from the photo to the score must pass the layers; by default they are the ends of the
network's last four stages.

examples:
  naflow-fx decompose cat.jpg
  naflow-fx decompose cat.jpg --target "tabby" --top-k 5 --layers head_act blocks.10.add
  naflow-fx decompose cat.jpg --model resnet50 --weights IMAGENET1K_V2
"""
PAGE, RECORD = "decomposition.html", "decomposition.json"
PRINTED = 2  # levels of the tree


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command(commands, "decompose", TEXT, EXAMPLES, "decompose:decompose", "PHOTO")
    parser.add_argument("photo", metavar="PHOTO", help="a picture file")
    add_targets(parser, "the predicted one")
    parser.add_argument(
        "--top-k", type=count, default=3, metavar="K",
        help="channels that each node rests on, at most (default: %(default)s)",
    )  # fmt: skip
    add_place_options(parser)
    add_model_options(parser, layers="the ends of the last four stages")


def decompose(args: argparse.Namespace) -> None:
    """Run the command; NaflowError or OSError before anything is written if an input is wrong."""
    from naflow_fx.cli.photos import check_writable, places, question, shown
    from naflow_fx.cli.setup import open_device, open_subject
    from naflow_fx.files import write
    from naflow_fx.models.preprocess import open_photo
    from naflow_fx.subjects.inputs import seen

    path = Path(args.photo)
    photo = open_photo(path)
    asked = question(args, [path])
    (place,) = places([path.stem], Path(args.out), [asked], RECORD)
    subject = open_subject(args)
    prepare = subject.preprocessing
    words = [one or PREDICTED for one in args.target or [None]]
    targets = {word: subject.target(word) for word in words}
    device = open_device(args.device)
    check_writable(place)
    with news_aside():
        model = subject.build(device)
    image = prepare(photo)[None].to(device)
    for word, target in targets.items():
        there = place / folder_of(word) if len(targets) > 1 else place
        with progress(count=False) as bar:
            bar.add_task(f"decomposing {shown(path)}", total=None)
            found = naflow_fx.decompose(
                model, image, target, args.layers, args.top_k, subject.class_names
            )
            found.save_html(there / PAGE, seen(prepare, photo))
            record = {"photo": shown(path), "question": asked, **subject.facts, **found.to_json()}
            write(there / RECORD, json.dumps(record))
        _print(found, path, there)


def _print(found: Decomposition, path: Path, place: Path) -> None:
    from naflow_fx.cli.photos import shown

    say(f"{shown(path)}: {found.text(PRINTED)}")
    say(f"cost: {found.cost}")
    say(f"written: {place / PAGE}, {RECORD}")
