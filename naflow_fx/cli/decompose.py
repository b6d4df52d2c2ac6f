"""`naflow-fx decompose`: the channels that a decision about a photo rests on, as a tree."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import naflow_fx
from naflow_fx import models
from naflow_fx.cli.photos import check_writable, places, question, seen, shown
from naflow_fx.cli.progress import news_aside, progress
from naflow_fx.cli.setup import open_device
from naflow_fx.decomposition import Decomposition
from naflow_fx.models.preprocess import class_index, open_photo
from naflow_fx.view.terminal import say

PAGE, RECORD = "decomposition.html", "decomposition.json"
PRINTED = 2  # levels of the tree


def decompose(args: argparse.Namespace) -> None:
    """Run the command; NaflowError or OSError before anything is written if an input is wrong."""
    path = Path(args.photo)
    photo = open_photo(path)
    asked = question(args, [path])
    (place,) = places([path.stem], Path(args.out), [asked], RECORD)
    card = models.card(args.model, args.weights)
    target = None if args.target is None else class_index(args.target)
    device = open_device(args.device)
    check_writable(place)
    with progress(count=False) as bar:
        bar.add_task(f"decomposing {shown(path)}", total=None)
        with news_aside():
            model = models.build(args.model, pretrained=args.weights is None, weights=args.weights)
        image = card.preprocessing(photo)[None].to(device)
        found = naflow_fx.decompose(
            model.to(device), image, target, args.layers, args.top_k, card.class_names
        )
        found.save_html(place / PAGE, seen(card.preprocessing, photo))
        record = {"photo": shown(path), "question": asked, "model": args.model, **found.to_json()}
        (place / RECORD).write_text(json.dumps(record), encoding="utf-8")
    _print(found, path, place)


def _print(found: Decomposition, path: Path, place: Path) -> None:
    say(f"{shown(path)}: {found.text(PRINTED)}")
    say(f"cost: {found.cost}")
    say(f"written: {place / PAGE}, {RECORD}")
