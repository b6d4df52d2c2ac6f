r"""Explain thousands of photos into tables; go on after any interruption.

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
  torchrun --nproc-per-node 8 -m naflow_fx batch photos/ --out results --engine torchrun \
    --device cuda
  naflow-fx report results        a page: classes, depth curves, unusual photos, worst residuals
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from naflow_fx.cli.options import add_device, add_method_options, add_model_options
from naflow_fx.cli.parser import count, folder, option, whole
from naflow_fx.cli.setup import choose, open_subject
from naflow_fx.cli.tables import show
from naflow_fx.cli.variants import add_targets, each
from naflow_fx.options import open_device
from naflow_fx.view.terminal import say

PART_HELP = """photos a file, a multiple of the batch; at most so many are done again after a kill,
twice if a file was being written"""
ENGINE_HELP = """local: this process; ray: a cluster or this machine, needs naflow-fx[ray];
torchrun: one share of the parts a rank"""
TOLD = 8  # layers whose statistics are printed
RUN = ("maps", "kind", "device", "batch_size", "part_size", "workers", "engine", "actors",
       "retry_failed")  # fmt: skip
KINDS = ("folder", "imagefolder", "list", "tar", "parquet")


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    option(parser, "source SOURCE", "where the photos are, see below")
    option(parser, "--out DIR", "where the results go", folder, required=True)
    option(parser, "--kind", "of SOURCE (default: from what is there)", KINDS)
    add_targets(parser, "the predicted one", "; label: each photo's own")
    _add_run_options(parser)
    add_model_options(parser, artefact=True)
    add_method_options(parser, several=True)


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    """Options of how it is computed and stored."""
    group = parser.add_argument_group("the run")
    add_device(group)
    option(group, "--batch-size N", "photos a call", count, 8)
    option(group, "--part-size N", PART_HELP, count, 64)
    text = "layers whose maps are stored; none after it: measures alone (default: all computed)"
    option(group, "--maps GLOB...", text, nargs="*")
    option(group, "--workers N", "processes that decode (default: by the machine)", whole)
    option(group, "--engine", ENGINE_HELP, ("local", "ray", "torchrun"), "local")
    option(group, "--actors N", "explainers of --engine ray (default: one a GPU)", count)
    option(group, "--compile", "through torch.compile; its start takes minutes")
    option(group, "--retry-failed", "try the photos of failed.jsonl again")
    option(group, "--quiet", "no progress, the last lines alone")


@each
def batch(args: argparse.Namespace) -> None:
    """Run the command; NaflowError before anything is written if an argument is wrong."""
    from naflow_fx.dataset.run import explain_dataset
    from naflow_fx.dataset.spec import ExplainerSpec

    subject, options = open_subject(args), choose(args)
    if args.engine != "ray":  # whose devices are elsewhere
        open_device(args.device)
    target: Any = args.target if args.target == "label" else subject.target(args.target)
    if callable(target):
        options["target"], target = args.target, None
    if "layers" in options:
        options["layers"] = tuple(options["layers"])
    spec = ExplainerSpec.of(subject, compiled=args.compile, trusted=args.trusted, **options)
    how = {name: getattr(args, name) for name in RUN}
    done = explain_dataset(
        spec, args.source, args.out, target=target, progress=not args.quiet, **how
    )
    lost = f", {done.failed} in failed.jsonl" if done.failed else ""
    took = f"{done.done} photos in {done.seconds:.0f} s, {done.rate:.3g}/s"
    show(
        f"{took}, device busy {done.device_share:.0%}" if done.done else done.found,
        f"written: {Path(done.out)}, {done.photos - done.failed} rows{lost}",
    )
    if not args.quiet:
        _tell_statistics(Path(args.out))


def _tell_statistics(place: Path) -> None:
    """Print what the maps say together, of a run that is complete and has stored some."""
    from naflow_fx.dataset.results import SAMPLE, open_results, statistics_of

    results = open_results(place)
    found = statistics_of(results, TOLD) if results.complete else None
    if found is not None:
        some = f", of {len(found)} of the photos" if len(results) > SAMPLE else ""
        say(f"{found}\nmeans over photos [95 %]{some}; all layers: "
            f"naflow-fx report {place}")  # fmt: skip
