"""`naflow-fx inspect`: the program of a network, as a table, a picture or data."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from naflow_fx import models as zoo
from naflow_fx.cli.photos import check_writable
from naflow_fx.cli.setup import choose, compile_model
from naflow_fx.errors import OptionError
from naflow_fx.inspection import Inspection
from naflow_fx.inspection.picture import DRAWN, kind_of
from naflow_fx.models.preprocess import open_photo
from naflow_fx.view.terminal import say

BINARY = ("png", "pdf")  # nothing for a terminal


def inspect(args: argparse.Namespace) -> None:
    """Run the command; without --photo and --weights on random weights, nothing is fetched."""
    out = _checked(args)
    choose(args)
    preprocessing = zoo.card(args.model, args.weights).preprocessing
    photo = None if args.photo is None else preprocessing(open_photo(args.photo))[None]
    real = photo is not None and args.weights is None
    model = zoo.build(args.model, pretrained=real, weights=args.weights)
    example = torch.zeros(1, 3, preprocessing.crop, preprocessing.crop)
    explainer = compile_model(model, example, args)
    if photo is not None:
        explainer(photo)
    _write(explainer.inspect(), args, out)


def _checked(args: argparse.Namespace) -> Path | None:
    """Where to write, None for the terminal; OptionError for options that don't fit together."""
    out = None if args.out is None else Path(args.out)
    if out is not None and out.is_dir():
        raise OptionError(f"--out {out}: is a folder; give the name of a file")
    if args.format is None:
        args.format = "table" if out is None else kind_of(out)
    if (args.expand or args.only) and args.format not in (*DRAWN, "dot"):
        raise OptionError("--expand and --only choose what a picture shows: add --format svg")
    if out is None and args.format in BINARY:
        raise OptionError(f"--format {args.format}: add --out FILE")
    if out is None:
        return Path("inspect.html") if args.format == "html" else None
    check_writable(out.parent / f".{out.name}")
    return out


def _write(inspection: Inspection, args: argparse.Namespace, out: Path | None) -> None:
    """The inspection in the format that was asked for."""
    if out is None:
        say(inspection.content(args.format, args.expand, args.only).decode().rstrip("\n"))
        return
    inspection.save_as(args.format, out, args.expand, args.only)
    say(f"written: {out}")
