"""`naflow-fx explain`: check everything, compile once, then explain and save photo by photo."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from naflow_fx.artefacts.artefact import Artefact
from naflow_fx.cli.photos import check_writable, places, question, seen, shown
from naflow_fx.cli.progress import news_aside, progress
from naflow_fx.cli.setup import open_device
from naflow_fx.cli.source import Source, open_source
from naflow_fx.cli.tables import print_flow
from naflow_fx.explainer import Explainer
from naflow_fx.flow import AttentionFlow
from naflow_fx.models.preprocess import open_photo
from naflow_fx.selection import spread

SHEET = 12  # layers that are drawn where nobody says which


def explain(args: argparse.Namespace) -> None:
    """Run the command; NaflowError or OSError before anything is written if an input is wrong."""
    photos = [Path(photo) for photo in args.photos]
    for photo in photos:
        open_photo(photo)
    asked = [question(args, [photo]) for photo in photos]
    folders = places([photo.stem for photo in photos], Path(args.out), asked)
    source = open_source(args)
    target = source.target(args.target)
    device = open_device(args.device)
    for place in folders:
        check_writable(place)
    with progress(count=False) as bar, news_aside():
        bar.add_task(f"preparing {args.artefact or args.model}", total=None)
        example = source.preprocessing(open_photo(photos[0]))[None].to(device)
        explainer = source.make(example)
    layers = explainer.layers if args.layers else spread(explainer.layers, SHEET)
    for photo, place in zip(photos, folders, strict=True):
        flow = _explain_one(photo, place, explainer, layers, source, target, args)
        print_flow(flow, layers, shown(photo), place, source.class_names, args.verbose)


def _explain_one(
    photo: Path,
    place: Path,
    explainer: Explainer | Artefact,
    layers: Sequence[str],
    source: Source,
    target: int | None,
    args: argparse.Namespace,
) -> AttentionFlow:
    """Explain one photo and draw some of its layers; gives the flow, in main memory."""
    with progress() as bar:
        task = bar.add_task(shown(photo), total=len(layers) + 1)
        image = open_photo(photo)
        tensor = source.preprocessing(image)[None].to(open_device(args.device))
        flow: AttentionFlow = explainer(tensor, target=target).detach().cpu()
        bar.advance(task)
        flow.save(
            place,
            [seen(source.preprocessing, image)],
            layers=layers,
            alpha=args.alpha,
            colormap=args.colormap,
            title=shown(photo),
            class_names=source.class_names,
            info=_facts(photo, image, source, args),
            on_picture=lambda name: bar.advance(task),
        )
    return flow


def _facts(
    photo: Path, image: Image.Image, source: Source, args: argparse.Namespace
) -> dict[str, Any]:
    """What flow.json says of the photo and the model."""
    asked = question(args, [photo])
    (digest,) = asked["photos"]
    return {
        "photo": {"file": shown(photo), "sha256": digest, "size": [image.height, image.width]},
        "question": asked,
        **source.facts,
        "device": args.device,
    }
