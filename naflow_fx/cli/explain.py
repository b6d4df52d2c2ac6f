"""`naflow-fx explain`: check everything, compile once, then explain and save photo by photo."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from naflow_fx.cli.base import Commands, command, news_aside
from naflow_fx.cli.options import add_method_options, add_model_options, add_picture_options
from naflow_fx.errors import PhotoError
from naflow_fx.selection import spread
from naflow_fx.view.progress import progress

if TYPE_CHECKING:
    from naflow_fx.artefacts.artefact import Artefact
    from naflow_fx.explainer import Explainer
    from naflow_fx.flow import AttentionFlow
    from naflow_fx.subjects import Subject

TEXT = "explain photos: what each layer looks at, from the input to the decision"
EXAMPLES = """\
what is written, for each photo:
  DIR/<photo>/grid.png     the photo, then the maps of twelve layers over it, from input to output
  DIR/<photo>/maps/*.png   the same maps, one picture each
  DIR/<photo>/flow.json    of every layer: name, shape, residual, norm ratio; score, top 5, options
Several --target or --methods are folders in DIR/<photo>, and the rows of its grid.png.
DIR/<photo>-2, ... where DIR/<photo> has the maps of another photo, class or choice of options.

examples:
  naflow-fx explain cat.jpg
  naflow-fx explain cat.jpg dog.jpg --target "tabby" --out pictures
  naflow-fx explain cat.jpg --layers all
  naflow-fx explain cat.jpg --layers 'blocks.1?.*' --method layercam
  naflow-fx explain cat.jpg --model resnet50 --weights IMAGENET1K_V2 --device cuda
  naflow-fx explain cat.jpg --target predicted tabby --methods naflow focused layercam
  naflow-fx explain wall.jpg --model nets.py:Crack --weights crack.pt --classes names.txt \\
    --size 96 --mean 0.5 --std 0.25
  naflow-fx explain cat.jpg --reduction channelwise --damping 0.01 --steps 20
"""
GRID = "grid.png"
SHEET = 12  # layers that are drawn where nobody says which


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command(commands, "explain", TEXT, EXAMPLES, "explain:explain", "PHOTO...")
    parser.add_argument(
        "photos", nargs="+", metavar="PHOTO", help="picture files, before the options"
    )
    parser.add_argument(
        "--target",
        nargs="+",
        metavar="CLASS|NAME",
        help="classes to explain, numbers or names; predicted: the predicted one (default)",
    )
    add_picture_options(parser)
    parser.add_argument(
        "--verbose", action="store_true", help="print a table of all layers with their numbers"
    )
    text = "also write maps.npz, the raw map of every layer"
    parser.add_argument("--save-arrays", action="store_true", help=text)
    add_model_options(parser, artefact=True, layers="all are computed, twelve of them drawn")
    add_method_options(parser, several=True)


def explain(args: argparse.Namespace) -> None:
    """Run the command; NaflowError or OSError before anything is written if an input is wrong."""
    from naflow_fx.cli.photos import check_writable, places, question, shown
    from naflow_fx.cli.setup import choose, open_device, open_subject
    from naflow_fx.cli.tables import print_flow
    from naflow_fx.models.preprocess import open_photo

    photos = [Path(photo) for photo in args.photos]
    for photo in photos:
        if photo.is_dir():
            raise PhotoError(f"{photo}: is a folder; `naflow-fx batch {photo} --out results` "
                             "explains all that is in it")  # fmt: skip
        open_photo(photo)
    asked = [question(args, [photo]) for photo in photos]
    folders = places([photo.stem for photo in photos], Path(args.out), asked)
    subject, options = open_subject(args), choose(args)
    targets = {text: subject.target(text) for text in args.target or [None]}
    device = open_device(args.device)
    for place in folders:
        check_writable(place)
    methods = [{"method": one} for one in args.methods or ()] or [{}]
    with progress(count=False) as bar, news_aside():
        bar.add_task(f"preparing {subject.name}", total=None)
        example = subject.inputs(photos[:1], device)
        explainers = [subject.explainer(example, **{**options, **one}) for one in methods]
    layers = explainers[0].layers if args.layers else spread(explainers[0].layers, SHEET)
    rows = [Row(each, explainer, target, method.get("method")) for each, target in targets.items()
            for method, explainer in zip(methods, explainers, strict=True)]  # fmt: skip
    for photo, place in zip(photos, folders, strict=True):
        flows = []
        for row in rows:
            there = place / row.folder if len(rows) > 1 else place
            flows.append(_explain_one(photo, there, row, layers, subject, args))
            print_flow(flows[-1], layers, shown(photo), there, subject.class_names, args.verbose)
        if len(rows) > 1:
            _sheet(rows, flows, layers, shown(photo), place, args)


@dataclass(frozen=True)
class Row:
    """One answer about a photo: why a class, by a method.

    text: the class as it was asked for; None: the predicted one, unasked.
    """

    text: str | None
    explainer: Explainer | Artefact
    target: int | None
    method: str | None

    @property
    def folder(self) -> str:
        """Where its pictures go, below the photo's folder."""
        words = "-".join(part for part in (self.text, self.method) if part)
        return re.sub(r"[^A-Za-z0-9_.\-]+", "_", words).strip("._") or "class"


def _explain_one(
    photo: Path,
    place: Path,
    row: Row,
    layers: Sequence[str],
    subject: Subject,
    args: argparse.Namespace,
) -> AttentionFlow:
    """Explain one photo and draw some of its layers; gives the flow, in main memory."""
    from naflow_fx.cli.photos import shown
    from naflow_fx.cli.setup import open_device

    with progress() as bar:
        task = bar.add_task(shown(photo), total=len(layers) + 1)
        tensor = subject.inputs([photo], open_device(args.device))
        flow: AttentionFlow = row.explainer(tensor, target=row.target).detach().cpu()
        flow.about = subject.about([photo])
        bar.advance(task)
        flow.save(
            place,
            layers=layers,
            alpha=args.alpha,
            colormap=args.colormap,
            title=shown(photo),
            info=_facts(photo, args),
            on_picture=lambda name: bar.advance(task),
            arrays=args.save_arrays,
        )
    return flow


def _facts(photo: Path, args: argparse.Namespace) -> dict[str, Any]:
    """What flow.json says of the photo and the question."""
    from naflow_fx.cli.photos import question, shown
    from naflow_fx.models.preprocess import open_photo

    asked = question(args, [photo])
    (digest,) = asked["photos"]
    image = open_photo(photo)
    return {
        "photo": {"file": shown(photo), "sha256": digest, "size": [image.height, image.width]},
        "question": asked,
        "device": args.device,
    }


def _sheet(
    rows: Sequence[Row],
    flows: Sequence[AttentionFlow],
    layers: Sequence[str],
    title: str,
    place: Path,
    args: argparse.Namespace,
) -> None:
    """One sheet of all answers about a photo, a row each, and where it is."""
    from naflow_fx.cli.tables import class_words
    from naflow_fx.view.several import save_rows
    from naflow_fx.view.terminal import say

    model = str(flows[0].about.info["model"])
    words = [class_words(flow) for flow in flows]
    names = [f"{each} · {row.method}" if row.method else each
             for each, row in zip(words, rows, strict=True)]  # fmt: skip
    path = save_rows(place / GRID, names, flows, layers, title, model, args.alpha, args.colormap)
    say(f"written: {path}, {len(rows)} rows")
