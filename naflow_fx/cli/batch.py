"""`naflow-fx batch`: a source of photos explained into a folder of tables."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from rich.text import Text

from naflow_fx.cli.setup import choose, open_device
from naflow_fx.cli.source import open_source
from naflow_fx.cli.tables import console
from naflow_fx.dataset.run import DatasetRun, explain_dataset
from naflow_fx.dataset.spec import ExplainerSpec
from naflow_fx.errors import DatasetError
from naflow_fx.models.preprocess import Preprocessing


def batch(args: argparse.Namespace) -> None:
    """Run the command; NaflowError before anything is written if an argument is wrong."""
    chosen = open_source(args)  # also checks that options and artefact go together
    if args.engine != "ray":  # whose devices are elsewhere
        open_device(args.device)
    label = args.target == "label"
    target: Any = "label" if label else chosen.target(args.target)
    done = explain_dataset(
        explainer_spec(args, chosen.preprocessing),
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


def explainer_spec(args: argparse.Namespace, preprocessing: Preprocessing) -> ExplainerSpec:
    """The explainer that the command line names."""
    resized = scaled(preprocessing, args.size)
    if args.artefact is not None:
        if args.compile or args.size:
            raise DatasetError("--compile, --size: the artefact was made with its own; leave them "
                               "out, or explain with --model")  # fmt: skip
        return ExplainerSpec(artefact=args.artefact, trusted=args.trusted)
    given = choose(args)
    layers = given.pop("layers", None)
    return ExplainerSpec(
        args.model,
        args.weights,
        layers=None if layers is None else tuple(layers),
        preprocessing=resized if args.size else None,
        compiled=args.compile,
        **given,
    )


def scaled(preprocessing: Preprocessing, size: int | None) -> Preprocessing:
    """The same part of the photo at another number of pixels."""
    if size is None:
        return preprocessing
    factor = size / preprocessing.crop
    old = preprocessing.resize
    one = max(size, round(old * factor)) if isinstance(old, int) else None
    two = (size, size) if isinstance(old, int) else tuple(max(size, round(o * factor)) for o in old)
    resize: Any = two if one is None else one
    return dataclasses.replace(preprocessing, resize=resize, crop=size)


def tell(done: DatasetRun) -> None:
    """Print what a call did."""
    out = console()
    if done.done:
        out.print(Text(f"{done.done} photos in {done.seconds:.0f} s, {done.rate:.3g}/s, device "
                       f"busy {done.device_share:.0%}"))  # fmt: skip
    else:
        out.print(Text(done.found))
    rows = done.photos - done.failed
    lost = f", {done.failed} in failed.jsonl" if done.failed else ""
    out.print(Text(f"written: {Path(done.out)}, {rows} rows{lost}"))
