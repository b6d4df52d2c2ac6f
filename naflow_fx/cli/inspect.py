"""`naflow-fx inspect`: the program of a network, as a table, a picture or data."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from naflow_fx import models as zoo
from naflow_fx.cli.photos import check_writable
from naflow_fx.cli.setup import choose, compile_model
from naflow_fx.errors import OptionError
from naflow_fx.models.preprocess import open_photo
from naflow_fx.printable import say


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
    if (args.expand or args.only) and args.format != "svg":
        raise OptionError("--expand and --only choose what a picture shows: add --format svg")
    if args.out is None:
        return Path("inspect.html") if args.format == "html" else None
    out = Path(args.out)
    if out.is_dir():
        raise OptionError(f"--out {out}: is a folder; give the name of a file")
    check_writable(out.parent / f".{out.name}")
    return out


def _write(inspection: Any, args: argparse.Namespace, out: Path | None) -> None:
    """The inspection in the format that was asked for."""
    if args.format == "html":
        from naflow_fx.viewer import save_graph

        assert out is not None
        save_graph(out, inspection, title=args.model)
    else:
        text = _text(inspection, args)
        if out is None:
            say(text)
            return
        out.write_text(f"{text}\n", encoding="utf-8")
    say(f"written: {out}")


def _text(inspection: Any, args: argparse.Namespace) -> str:
    if args.format == "table":
        return str(inspection)
    if args.format == "svg":
        picture: str = inspection.to_svg(expand=args.expand, only=args.only)
        return picture.rstrip("\n")
    found: str = inspection.to_dot() if args.format == "dot" else inspection.to_json(indent=1)
    return found.rstrip("\n")
