"""`naflow-fx explain`: check everything, compile once, then explain and save photo by photo."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from naflow_fx.cli.base import Commands, command, news_aside
from naflow_fx.cli.options import add_method_options, add_model_options, add_picture_options
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
DIR/<photo>-2, ... where DIR/<photo> has the maps of another photo, class or choice of options.

examples:
  naflow-fx explain cat.jpg
  naflow-fx explain cat.jpg dog.jpg --target "tabby" --out pictures
  naflow-fx explain cat.jpg --layers all
  naflow-fx explain cat.jpg --layers 'blocks.1?.*' --method layercam
  naflow-fx explain cat.jpg --model resnet50 --weights IMAGENET1K_V2 --device cuda
  naflow-fx explain cat.jpg --model resnet18 --weights my_training.pt
  naflow-fx explain cat.jpg --reduction channelwise --damping 0.01 --steps 20
"""
SHEET = 12  # layers that are drawn where nobody says which


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command(commands, "explain", TEXT, EXAMPLES, "explain:explain", "PHOTO...")
    parser.add_argument(
        "photos", nargs="+", metavar="PHOTO", help="picture files, before the options"
    )
    parser.add_argument(
        "--target",
        metavar="CLASS|NAME",
        help="class to explain, a number or a name (default: the predicted one)",
    )
    add_picture_options(parser)
    parser.add_argument(
        "--verbose", action="store_true", help="print a table of all layers with their numbers"
    )
    text = "also write maps.npz, the raw map of every layer"
    parser.add_argument("--save-arrays", action="store_true", help=text)
    add_model_options(parser, artefact=True, layers="all are computed, twelve of them drawn")
    add_method_options(parser)


def explain(args: argparse.Namespace) -> None:
    """Run the command; NaflowError or OSError before anything is written if an input is wrong."""
    from naflow_fx.cli.photos import check_writable, places, question, shown
    from naflow_fx.cli.setup import choose, open_device, open_subject
    from naflow_fx.cli.tables import print_flow
    from naflow_fx.models.preprocess import open_photo

    photos = [Path(photo) for photo in args.photos]
    for photo in photos:
        open_photo(photo)
    asked = [question(args, [photo]) for photo in photos]
    folders = places([photo.stem for photo in photos], Path(args.out), asked)
    subject, options = open_subject(args), choose(args)
    target = subject.target(args.target)
    device = open_device(args.device)
    for place in folders:
        check_writable(place)
    with progress(count=False) as bar, news_aside():
        bar.add_task(f"preparing {subject.name}", total=None)
        explainer = subject.explainer(subject.inputs(photos[:1], device), **options)
    layers = explainer.layers if args.layers else spread(explainer.layers, SHEET)
    for photo, place in zip(photos, folders, strict=True):
        flow = _explain_one(photo, place, explainer, layers, subject, target, args)
        print_flow(flow, layers, shown(photo), place, subject.class_names, args.verbose)


def _explain_one(
    photo: Path,
    place: Path,
    explainer: Explainer | Artefact,
    layers: Sequence[str],
    subject: Subject,
    target: int | None,
    args: argparse.Namespace,
) -> AttentionFlow:
    """Explain one photo and draw some of its layers; gives the flow, in main memory."""
    from naflow_fx.cli.photos import shown
    from naflow_fx.cli.setup import open_device
    from naflow_fx.models.preprocess import open_photo
    from naflow_fx.subjects.inputs import seen

    with progress() as bar:
        task = bar.add_task(shown(photo), total=len(layers) + 1)
        image = open_photo(photo)
        tensor = subject.inputs([image], open_device(args.device))
        flow: AttentionFlow = explainer(tensor, target=target).detach().cpu()
        bar.advance(task)
        flow.save(
            place,
            [seen(subject.preprocessing, image)],
            layers=layers,
            alpha=args.alpha,
            colormap=args.colormap,
            title=shown(photo),
            class_names=subject.class_names,
            info=_facts(photo, image, subject, args),
            on_picture=lambda name: bar.advance(task),
            arrays=args.save_arrays,
        )
    return flow


def _facts(
    photo: Path, image: Image.Image, subject: Subject, args: argparse.Namespace
) -> dict[str, Any]:
    """What flow.json says of the photo and the model."""
    from naflow_fx.cli.photos import question, shown

    asked = question(args, [photo])
    (digest,) = asked["photos"]
    return {
        "photo": {"file": shown(photo), "sha256": digest, "size": [image.height, image.width]},
        "question": asked,
        **subject.facts,
        "device": args.device,
    }
