r"""Explain photos: what each layer looks at, from the input to the decision.

what is written, for each photo:
  DIR/<photo>/grid.png     the photo, then the maps of twelve layers over it, from input to output
  DIR/<photo>/maps/*.png   the same maps, one picture each
  DIR/<photo>/flow.json    of every layer: name, shape, residual, norm ratio; score, top 5, options
Several --target or --methods: a folder each with these files in DIR/<photo>, and its rows.png, a
row each and, of two, their difference.
DIR/<photo>-2, ... where DIR/<photo> has the maps of another photo, class or choice of options.

examples:
  naflow-fx explain cat.jpg
  naflow-fx explain cat.jpg dog.jpg --target "tabby" --out pictures
  naflow-fx explain cat.jpg --layers all
  naflow-fx explain cat.jpg --layers 'blocks.1?.*' --method layercam
  naflow-fx explain cat.jpg --model resnet50 --weights IMAGENET1K_V2 --device cuda
  naflow-fx explain cat.jpg --target predicted tabby --methods naflow focused layercam
  naflow-fx explain wall.jpg --model nets.py:Crack --weights crack.pt --classes names.txt \
    --size 96 --mean 0.5 --std 0.25
  naflow-fx explain cat.jpg --reduction channelwise --damping 0.01 --steps 20
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from naflow_fx.cli import setup
from naflow_fx.cli.options import DRAWN, add_method_options, add_model_options, add_picture_options
from naflow_fx.cli.parser import option
from naflow_fx.cli.tables import explained_words, prediction, show_flow, waiting
from naflow_fx.cli.variants import add_targets, folder_of, names_of, variants, words
from naflow_fx.errors import PhotoError
from naflow_fx.options import open_device
from naflow_fx.view.progress import progress
from naflow_fx.view.terminal import say

if TYPE_CHECKING:
    from rich.progress import Progress

    from naflow_fx.flow import AttentionFlow

ROWS = "rows.png"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    option(parser, "photos PHOTO...", "picture files, before the options")
    add_targets(parser, "the predicted one")
    add_picture_options(parser)
    option(parser, "--verbose", "print a table of all layers with their numbers")
    option(parser, "--cells", "draw the cells of the maps' own grids, not a smooth picture")
    option(parser, "--save-arrays", "also write maps.npz, the raw map of every layer")
    add_model_options(parser, artefact=True, layers=DRAWN)
    add_method_options(parser, several=True)


def explain(args: argparse.Namespace) -> None:
    """Run the command; NaflowError or OSError before anything is written if an input is wrong."""
    photos = [Path(photo) for photo in args.photos]
    for photo in photos:
        if photo.is_dir():
            raise PhotoError(f"{photo}: is a folder; `naflow-fx batch {photo} --out results` "
                             "explains all that is in it")  # fmt: skip
    chosen = variants(args)
    if len(chosen) == 1:
        args = chosen[0]
    folders = setup.places(args, [(photo,) for photo in photos])
    subject, names = setup.open_subject(args), names_of(list(map(words, chosen)))
    targets = [subject.target(one.target) for one in chosen]
    options = {one.method: setup.choose(one) for one in chosen}
    device = open_device(args.device)
    with waiting(f"preparing {subject.name}"):
        example = subject.inputs(photos[:1], device)
        made = {m: subject.explainer(example, targets=targets, **how) for m, how in options.items()}
        layers = setup.drawn(args, made[chosen[0].method].layers)
    for photo, place in zip(photos, folders, strict=True):
        flows: dict[str, AttentionFlow] = {}
        for name, one, target in zip(names, chosen, targets, strict=True):
            there = place / folder_of(name) if len(chosen) > 1 else place
            with progress() as bar:
                bar.add_task(setup.shown(photo), total=len(layers) + 1)
                flow = made[one.method](subject.inputs([photo], device), target).detach().cpu()
                flows[name] = subject.told(flow, [photo])
                _save(flows[name], photo, there, layers, args, bar)
            show_flow(flows[name], layers, setup.shown(photo), there, args.verbose)
        if len(chosen) > 1:
            _sheet(flows, layers, setup.shown(photo), place / ROWS, args)


def _save(
    flow: AttentionFlow,
    photo: Path,
    place: Path,
    layers: Sequence[str],
    args: argparse.Namespace,
    bar: Progress,
) -> None:
    """The pictures of some layers, and flow.json with what it says of the photo."""
    from naflow_fx.models.preprocess import open_photo

    (task,) = bar.task_ids
    bar.advance(task)
    facts = {
        "photo": setup.facts_of(photo, open_photo(photo)),
        "question": setup.question(args, photo),
    }
    flow.save(
        place,
        layers=layers,
        alpha=args.alpha,
        colormap=args.colormap,
        title=setup.shown(photo),
        info={**facts, "device": args.device},
        on_picture=lambda _: bar.advance(task),
        arrays=args.save_arrays,
        smooth=not args.cells,
    )


def _sheet(
    flows: Mapping[str, AttentionFlow],
    layers: Sequence[str],
    title: str,
    path: Path,
    args: argparse.Namespace,
) -> None:
    """One sheet of all answers about a photo, a row each, and where it is."""
    from naflow_fx.files import replacing
    from naflow_fx.view.colours import write_png
    from naflow_fx.view.comparison import comparison
    from naflow_fx.view.photos import Style

    first = next(iter(flows.values()))
    classes = {explained_words(flow) for flow in flows.values()}
    spoken = f"what speaks for {classes.pop()}" if len(classes) == 1 else "the evidence"
    style = Style(layers=layers, alpha=args.alpha, colormap=args.colormap, smooth=not args.cells)
    heading = f"{title}: {prediction(first).partition(' (')[0]}"
    told = f"from the first layers to the decision · bright: {spoken}"
    sheet = comparison(flows, None, style, heading, told)
    with replacing(path) as draft:
        write_png(sheet, draft)
    say(f"written: {path}, {len(flows)} rows")
