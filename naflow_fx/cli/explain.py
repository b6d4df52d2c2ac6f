"""`naflow-fx explain`: check everything, compile once, then explain and save photo by photo."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from naflow_fx.cli.base import Commands, command, news_aside
from naflow_fx.cli.options import add_method_options, add_model_options, add_picture_options
from naflow_fx.cli.variants import Variant, add_several, names_of, of_variant, variants
from naflow_fx.selection import spread
from naflow_fx.view.progress import progress

if TYPE_CHECKING:
    from naflow_fx.artefacts.artefact import Artefact
    from naflow_fx.cli.source import Source
    from naflow_fx.explainer import Explainer
    from naflow_fx.flow import AttentionFlow

TEXT = "explain photos: what each layer looks at, from the input to the decision"
EXAMPLES = """\
what is written, for each photo:
  DIR/<photo>/grid.png     the photo, then the maps of twelve layers over it, from input to output
  DIR/<photo>/maps/*.png   the same maps, one picture each
  DIR/<photo>/flow.json    of every layer: name, shape, residual, norm ratio; score, top 5, options
several targets or methods: DIR/<photo>/rows.png, a row each (of two, their difference, too), and
  DIR/<photo>/<row>/ with the files above
DIR/<photo>-2, ... where DIR/<photo> has the maps of another photo, class or choice of options.

examples:
  naflow-fx explain cat.jpg
  naflow-fx explain cat.jpg dog.jpg --target "tabby" --out pictures
  naflow-fx explain cat.jpg --layers all
  naflow-fx explain cat.jpg --target predicted "tiger cat"      why not this one? both, and minus
  naflow-fx explain cat.jpg --methods naflow focused layercam
  naflow-fx explain cat.jpg --layers 'blocks.1?.*' --method layercam
  naflow-fx explain cat.jpg --model resnet50 --weights IMAGENET1K_V2 --device cuda
  naflow-fx explain cat.jpg --model resnet18 --weights my_training.pt
  naflow-fx explain cat.jpg --reduction channelwise --damping 0.01 --steps 20
"""
SHEET = 12  # layers that are drawn where nobody says which
ROWS = "rows.png"


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command(commands, "explain", TEXT, EXAMPLES, "explain:explain", "PHOTO...")
    parser.add_argument(
        "photos", nargs="+", metavar="PHOTO", help="picture files, before the options"
    )
    add_several(parser, "the predicted one")
    add_picture_options(parser)
    parser.add_argument(
        "--verbose", action="store_true", help="print a table of all layers with their numbers"
    )
    add_model_options(parser, artefact=True, layers="all are computed, twelve of them drawn")
    add_method_options(parser)


def explain(args: argparse.Namespace) -> None:
    """Run the command; NaflowError or OSError before anything is written if an input is wrong."""
    from naflow_fx.cli.photos import check_writable, places, question, shown
    from naflow_fx.cli.setup import open_device
    from naflow_fx.cli.source import open_source
    from naflow_fx.cli.tables import print_flow
    from naflow_fx.models.preprocess import open_photo

    photos = [Path(photo) for photo in args.photos]
    for photo in photos:
        open_photo(photo)
    chosen = variants(args)
    if len(chosen) == 1:
        args = of_variant(args, chosen[0])
    asked = [question(args, [photo]) for photo in photos]
    folders = places([photo.stem for photo in photos], Path(args.out), asked)
    source = open_source(args)
    targets = [source.target(one.target) for one in chosen]
    open_device(args.device)
    for place in folders:
        check_writable(place)
    if len(chosen) > 1:
        _explain_rows(photos, folders, chosen, args)
        return
    explainer = _prepared(source, photos[0], args)
    layers = explainer.layers if args.layers else spread(explainer.layers, SHEET)
    for photo, place in zip(photos, folders, strict=True):
        flow = _explain_one(photo, place, explainer, layers, source, targets[0], args)
        print_flow(flow, layers, shown(photo), place, source.class_names, args.verbose)


def _explain_rows(
    photos: Sequence[Path],
    folders: Sequence[Path],
    chosen: Sequence[Variant],
    args: argparse.Namespace,
) -> None:
    """Explain photos for several targets or by several methods, and draw the rows of each."""
    from naflow_fx.cli.photos import shown
    from naflow_fx.cli.source import open_source
    from naflow_fx.cli.tables import print_flow

    names = names_of([one.words for one in chosen])
    found: list[dict[str, AttentionFlow]] = [{} for _ in photos]
    explainers: dict[str | None, Explainer | Artefact] = {}
    for name, one in zip(names, chosen, strict=True):
        source = open_source(of_variant(args, one))
        if one.method not in explainers:
            explainers[one.method] = _prepared(source, photos[0], args)
        explainer, target = explainers[one.method], source.target(one.target)
        layers = explainer.layers if args.layers else spread(explainer.layers, SHEET)
        for photo, place, flows in zip(photos, folders, found, strict=True):
            where = place / re.sub(r"[^A-Za-z0-9_.+-]+", "_", name)
            flow = _explain_one(photo, where, explainer, layers, source, target, args)
            print_flow(flow, layers, shown(photo), where, source.class_names, args.verbose)
            flows[name] = flow
    for photo, place, flows in zip(photos, folders, found, strict=True):
        _draw_rows(photo, place, flows, layers, source, args)


def _draw_rows(
    photo: Path,
    place: Path,
    flows: dict[str, AttentionFlow],
    layers: Sequence[str],
    source: Source,
    args: argparse.Namespace,
) -> None:
    """Write the sheet that has a row a flow."""
    from naflow_fx.cli.photos import seen, shown
    from naflow_fx.models.preprocess import open_photo
    from naflow_fx.view.colours import write_png
    from naflow_fx.view.comparison import comparison
    from naflow_fx.view.files import replacing
    from naflow_fx.view.terminal import say

    picture = seen(source.preprocessing, open_photo(photo))
    look = {"alpha": args.alpha, "colormap": args.colormap, "title": shown(photo)}
    with replacing(place / ROWS) as draft:
        write_png(comparison(flows, picture, layers, **look), draft)
    say(f"written: {place / ROWS}")


def _prepared(source: Source, photo: Path, args: argparse.Namespace) -> Explainer | Artefact:
    """The explainer, compiled for inputs like the photo's."""
    from naflow_fx.cli.setup import open_device
    from naflow_fx.models.preprocess import open_photo

    with progress(count=False) as bar, news_aside():
        bar.add_task(f"preparing {args.artefact or args.model}", total=None)
        return source.make(
            source.preprocessing(open_photo(photo))[None].to(open_device(args.device))
        )


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
    from naflow_fx.cli.photos import seen, shown
    from naflow_fx.cli.setup import open_device
    from naflow_fx.models.preprocess import open_photo

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
    from naflow_fx.cli.photos import question, shown

    asked = question(args, [photo])
    (digest,) = asked["photos"]
    return {
        "photo": {"file": shown(photo), "sha256": digest, "size": [image.height, image.width]},
        "question": asked,
        **source.facts,
        "device": args.device,
    }
