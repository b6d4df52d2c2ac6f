"""`naflow-fx batch`: a source of photos explained into a folder of tables."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from naflow_fx.cli.base import Commands, command, count, folder, whole
from naflow_fx.cli.options import DEVICE_HELP, add_method_options, add_model_options
from naflow_fx.cli.variants import add_targets, each
from naflow_fx.errors import DatasetError

if TYPE_CHECKING:
    from naflow_fx.dataset.run import DatasetRun
    from naflow_fx.dataset.spec import ExplainerSpec
    from naflow_fx.subjects import Subject

TEXT = "explain thousands of photos into tables; go on after any interruption"
EXAMPLES = """\
SOURCE is a folder of photos (with folders of classes: an ImageFolder), a text file with a path a
line (and its class behind a tab), a WebDataset or other .tar, a .parquet with bytes of photos, or
a quoted pattern of several .tar or .parquet.

what is written:
  DIR/parts/*.parquet   one row a photo: id, sha256, prediction, score, target, residuals, measures
                        of every layer, maps as float16; pandas and pyarrow read them
  DIR/failed.jsonl      photos that could not be opened, and why
  DIR/manifest.json     what was asked; the same command again goes on where this one stood
Several --target or --methods: a folder each with these files in DIR, which `naflow-fx diff`
compares.

examples:
  naflow-fx batch photos/ --out results
  naflow-fx batch imagenet/val --out results --target label --maps 'layer?.*' --model resnet50
  naflow-fx batch photos/ --out results --target predicted label
  naflow-fx batch 'shards/*.tar' --out results --device cuda --batch-size 64 --part-size 256
  naflow-fx batch photos.parquet --out results --engine ray --actors 8 --device cuda
  torchrun --nproc-per-node 8 -m naflow_fx batch photos/ --out results --engine torchrun \\
    --device cuda
  naflow-fx report results        a page: classes, depth curves, unusual photos, worst residuals
"""
TOLD = 8  # layers whose statistics are printed
KINDS = ("folder", "imagefolder", "list", "tar", "parquet")


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command(commands, "batch", TEXT, EXAMPLES, "batch:batch", "SOURCE --out DIR")
    parser.add_argument("source", metavar="SOURCE", help="where the photos are, see below")
    parser.add_argument(
        "--out", type=folder, required=True, metavar="DIR", help="where the results go"
    )
    parser.add_argument("--kind", choices=KINDS, help="of SOURCE (default: from what is there)")
    add_targets(parser, "the predicted one", "; label: each photo's own")
    add_run_options(parser)
    add_model_options(parser, artefact=True)
    add_method_options(parser, several=True)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Options of how it is computed and stored."""
    group = parser.add_argument_group("the run")
    group.add_argument("--device", default="cpu", metavar="D", help=DEVICE_HELP)
    group.add_argument(
        "--batch-size", type=count, default=8, metavar="N", help="photos a call (default: 8)"
    )
    group.add_argument(
        "--part-size",
        type=count,
        default=64,
        metavar="N",
        help="photos a file, a multiple of the batch; at most so many are done again after a "
        "kill, twice if a file was being written (default: 64)",
    )
    group.add_argument(
        "--maps",
        nargs="*",
        metavar="GLOB",
        help="layers whose maps are stored; none after it: measures alone (default: all computed)",
    )
    group.add_argument(
        "--workers", type=whole, metavar="N", help="processes that decode (default: by the machine)"
    )
    group.add_argument(
        "--engine",
        choices=("local", "ray", "torchrun"),
        default="local",
        help="local: this process; ray: a cluster or this machine, needs naflow-fx[ray]; "
        "torchrun: one share of the parts a rank",
    )
    group.add_argument(
        "--actors", type=count, metavar="N", help="explainers of --engine ray (default: one a GPU)"
    )
    group.add_argument("--compile", action="store_true", help="through torch.compile; its start "
                       "takes minutes")  # fmt: skip
    group.add_argument(
        "--retry-failed", action="store_true", help="try the photos of failed.jsonl again"
    )
    group.add_argument("--quiet", action="store_true", help="no progress, the last lines alone")


def batch(args: argparse.Namespace) -> None:
    """Run the command; NaflowError before anything is written if an argument is wrong."""
    each(args, _run)


def _run(args: argparse.Namespace) -> None:
    """One target by one method, into one folder."""
    from naflow_fx.cli.setup import open_device, open_subject
    from naflow_fx.dataset.run import explain_dataset

    subject = open_subject(args)  # also checks that options and artefact go together
    if args.engine != "ray":  # whose devices are elsewhere
        open_device(args.device)
    target: Any = args.target if args.target == "label" else subject.target(args.target)
    spec = explainer_spec(args, subject)
    if callable(target):
        spec, target = replace(spec, target=args.target), None
    done = explain_dataset(
        spec,
        args.source,
        args.out,
        target=target,
        maps=args.maps,
        kind=args.kind,
        device=args.device,
        batch_size=args.batch_size,
        part_size=args.part_size,
        workers=args.workers,
        engine=args.engine,
        actors=args.actors,
        retry_failed=args.retry_failed,
        progress=not args.quiet,
    )
    tell(done)
    if not args.quiet:
        tell_statistics(Path(args.out))


def tell_statistics(place: Path) -> None:
    """Print what the maps say together, of a run that is complete and has stored some."""
    from naflow_fx.dataset.aggregate import SAMPLE, statistics_of
    from naflow_fx.dataset.results import open_results
    from naflow_fx.view.terminal import say

    results = open_results(place)
    found = statistics_of(results, TOLD) if results.complete else None
    if found is not None:
        some = f", of {len(found)} of the photos" if len(results) > SAMPLE else ""
        say(f"{found}\nmeans over photos [95 %]{some}; all layers: "
            f"naflow-fx report {place}")  # fmt: skip


def explainer_spec(args: argparse.Namespace, subject: Subject) -> ExplainerSpec:
    """The explainer that the command line names."""
    from naflow_fx.cli.setup import choose
    from naflow_fx.dataset.spec import ExplainerSpec
    from naflow_fx.subjects import ArtefactSubject

    options = choose(args)
    if isinstance(subject, ArtefactSubject) and args.compile:
        raise DatasetError("--compile: the artefact was made with its own; leave it out, or "
                           "explain with --model")  # fmt: skip
    layers = options.pop("layers", None)
    return ExplainerSpec.of(
        subject,
        layers=None if layers is None else tuple(layers),
        compiled=args.compile,
        trusted=args.trusted,
        **options,
    )


def tell(done: DatasetRun) -> None:
    """Print what a call did."""
    from naflow_fx.cli.tables import console

    out = console()
    if done.done:
        out.print(Text(f"{done.done} photos in {done.seconds:.0f} s, {done.rate:.3g}/s, device "
                       f"busy {done.device_share:.0%}"))  # fmt: skip
    else:
        out.print(Text(done.found))
    rows = done.photos - done.failed
    lost = f", {done.failed} in failed.jsonl" if done.failed else ""
    out.print(Text(f"written: {Path(done.out)}, {rows} rows{lost}"))
