"""One page for the browser: photos and models side by side, layer by layer.

what is written: one HTML file that needs no network, with the photos, the maps of every layer
(a scrubber, a play button, keys: press ? there), curves along depth, and the inverse graphs.

examples:
  naflow-fx report cat.jpg
  naflow-fx report cat.jpg dog.jpg --models resnet18 resnet50 --out animals.html
  naflow-fx report results/       of `naflow-fx batch`: classes, depth, unusual photos, residuals
  naflow-fx report cat.jpg --models resnet50 resnet50_cbam=cbam.pth resnet50_bam=bam.pth
  naflow-fx report wall.jpg --models old=nets.py:Crack new=nets.py:wide --subject crack.toml
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from naflow_fx.cli.info import size_text
from naflow_fx.cli.options import add_colours, add_device, add_method_options, add_model_options
from naflow_fx.cli.parser import make_parser, named, option
from naflow_fx.cli.setup import check_file, choose, open_subject, shown
from naflow_fx.cli.tables import news_aside
from naflow_fx.cli.variants import add_targets, names_of, numbered, variants, words
from naflow_fx.errors import DatasetError, OptionError, required
from naflow_fx.options import open_device
from naflow_fx.view.progress import progress
from naflow_fx.view.terminal import say

if TYPE_CHECKING:
    import torch

    from naflow_fx.subjects import Subject
    from naflow_fx.view.page import ReportEntry

MODELS_HELP = """several networks instead of --model, each with a checkpoint file or the name of
public weights if not the best ones are meant"""
DETAILS = ("bpfm", "importance", "used")  # what a page shows more of, if it is kept


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    text = "picture files, first of all; or one folder of `naflow-fx batch`"
    option(parser, "photos PHOTO...", text)
    option(parser, "--models [LABEL=]NAME[=WEIGHTS]...", MODELS_HELP)
    option(parser, "--out FILE", "what to write", named, "report.html")
    option(parser, "--title TITLE", "heading of the page (default: the photos' names)")
    add_targets(parser, "each model's prediction")
    text = "a smaller file: without energy of Z, top channels and abandoned neurons"
    option(parser, "--small", text)
    add_device(parser)
    add_colours(parser, "to start with", "to start with")
    add_model_options(parser, artefact=True)
    add_method_options(parser, several=True)


def report(args: argparse.Namespace) -> None:
    """Run the command; NaflowError or OSError before anything is written if an input is wrong."""
    from naflow_fx.artefacts import check_name
    from naflow_fx.dataset import is_results
    from naflow_fx.models.preprocess import open_photo
    from naflow_fx.view.page import save_report

    out = check_file(args.out)
    check_name(out, ".html")
    if len(args.photos) == 1 and is_results(args.photos[0]):
        what = f"a page about {args.photos[0]}"
        required("pyarrow.parquet", "pandas", extra="batch", what=what, error=DatasetError)
        plain = vars(make_parser().parse_args(["report", *args.photos, "--out", args.out]))
        if more := [name for name, value in vars(args).items() if value != plain[name]]:
            raise OptionError(
                f"--{', --'.join(more)}: {what} shows what that run has found; leave "
                "all but --out out"
            )
        from naflow_fx.dataset.report import write_report

        say(f"written: {write_report(args.photos[0], out)}, open it in a browser")
        return
    names = numbered(shown(Path(photo)) for photo in args.photos)
    photos = dict(zip(names, map(open_photo, args.photos), strict=True))
    asked = [(subject, one) for subject in _each(args) for one in variants(args)]
    facts = [subject.facts for subject, _ in asked]
    columns = names_of([{"model": str(of["model"]), "weights": str(of.get("weights") or ""),
                         **words(one)} for of, (_, one) in zip(facts, asked, strict=True)]
    )  # fmt: skip
    targets = [subject.target(one.target) for subject, one in asked]
    for _, one in asked:
        choose(one)
    device = open_device(args.device)
    with progress() as bar, news_aside():
        task = bar.add_task("explaining", total=len(asked) * len(photos))
        made = [
            _entry(column, subject, one, photos, target, device, lambda: bar.advance(task))
            for column, (subject, one), target in zip(columns, asked, targets, strict=True)
        ]
    title = args.title or ", ".join(names)
    save_report(out, made, title=title, colormap=args.colormap, alpha=args.alpha)
    say(f"written: {out} ({size_text(out)}), open it in a browser")


def _each(args: argparse.Namespace) -> Iterator[Subject]:
    """The network of the command line, or each of --models: [LABEL=]NAME[=WEIGHTS]."""
    from naflow_fx.subjects.openers import is_reference

    if args.models is None:
        yield open_subject(args)
        return
    other = [f"--{name}" for name in ("model", "artefact", "weights")
             if getattr(args, name) is not None]  # fmt: skip
    if other:
        raise OptionError(f"--models and {', '.join(other)}: give one of them")
    for text in args.models:
        label, _, rest = text.partition("=")
        named = is_reference(rest.partition("=")[0])
        model, _, weights = (rest if named else text).partition("=")
        found = open_subject(argparse.Namespace(**{**vars(args), "model": model,
                                                   "weights": weights or None}))  # fmt: skip
        found.name = label if named else found.name
        yield found


def _entry(
    name: str,
    subject: Subject,
    args: argparse.Namespace,
    photos: Mapping[str, Image.Image],
    target: Any,
    device: torch.device,
    on_photo: Callable[[], None],
) -> ReportEntry:
    """All photos explained by one model, one at a time: what is kept of a flow is large."""
    from naflow_fx.artefacts.artefact import Artefact
    from naflow_fx.subjects import ArtefactSubject
    from naflow_fx.view.page import ReportEntry

    inputs = [subject.inputs([photo], device) for photo in photos.values()]
    options = choose(args)
    fixed = args.small or isinstance(subject, ArtefactSubject)
    if not fixed and options.get("method", "naflow") == "naflow":
        options["keep"] = DETAILS
    explainer = subject.explainer(inputs[0], targets=[target], **options)
    flows = []
    for photo, image in zip(photos.values(), inputs, strict=True):
        flows.append(subject.told(explainer(image, target=target).detach().cpu(), [photo]))
        on_photo()
    graph = None if isinstance(explainer, Artefact) else explainer.inspect()
    return ReportEntry(flows, None, name, list(photos), graph)
