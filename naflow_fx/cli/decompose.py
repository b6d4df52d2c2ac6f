"""Which channels does a decision rest on? a tree, layer by layer.

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

from __future__ import annotations

import argparse
import json
from pathlib import Path

import naflow_fx
from naflow_fx.cli.options import add_device, add_model_options, add_out
from naflow_fx.cli.parser import count, option
from naflow_fx.cli.setup import open_subject, places, question, shown
from naflow_fx.cli.tables import news_aside, waiting
from naflow_fx.cli.variants import PREDICTED, add_targets, folder_of
from naflow_fx.options import open_device
from naflow_fx.view.terminal import say

PAGE, RECORD = "decomposition.html", "decomposition.json"
PRINTED = 2  # levels of the tree


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    option(parser, "photo PHOTO", "a picture file")
    add_targets(parser, "the predicted one")
    option(parser, "--top-k K", "channels that each node rests on, at most", count, 3)
    add_out(parser)
    add_device(parser)
    add_model_options(parser, layers="the ends of the last four stages")


def decompose(args: argparse.Namespace) -> None:
    """Run the command; NaflowError or OSError before anything is written if an input is wrong."""
    from naflow_fx.files import write
    from naflow_fx.models.preprocess import open_photo

    path = Path(args.photo)
    photo = open_photo(path)
    (place,) = places(args, [(path,)], RECORD)
    subject = open_subject(args)
    seen = subject.about([photo]).photos[0]
    words = [one or PREDICTED for one in args.target or [None]]
    targets = {word: subject.target(word) for word in words}
    device = open_device(args.device)
    with news_aside():
        model = subject.build(device)
    image = subject.inputs([photo], device)
    for word, target in targets.items():
        there = place / folder_of(word) if len(targets) > 1 else place
        with waiting(f"decomposing {shown(path)}"):
            found = naflow_fx.decompose(
                model, image, target, args.layers, args.top_k, subject.class_names
            )
            found.save_html(there / PAGE, seen)
            record = {
                "photo": shown(path),
                "question": question(args, path),
                **subject.facts,
                **found.to_json(),
            }
            write(there / RECORD, json.dumps(record))
        say(f"{shown(path)}: {found.text(PRINTED)}")
        say(f"cost: {found.cost}")
        say(f"written: {there / PAGE}, {RECORD}")
