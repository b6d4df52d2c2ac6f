"""`naflow-fx report`: photos explained by one or more models, as one page for the browser."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import nn

import naflow_fx
from naflow_fx import models
from naflow_fx.cli.photos import check_writable, seen, shown
from naflow_fx.cli.progress import news_aside, progress
from naflow_fx.cli.setup import choose, open_device
from naflow_fx.dataset import is_results
from naflow_fx.errors import OptionError
from naflow_fx.explainer import Explainer
from naflow_fx.models.card import ModelCard
from naflow_fx.models.preprocess import class_index, open_photo
from naflow_fx.view.page import ReportEntry, save_report
from naflow_fx.view.terminal import say

DETAILS = ("bpfm", "importance", "used")  # what a page shows more of, if it is kept


@dataclass(frozen=True)
class Named:
    """A model of the command line: NAME or NAME=WEIGHTS."""

    name: str
    weights: str | None
    card: ModelCard

    def build(self) -> nn.Module:
        """The network with its weights: the given ones, else the best public ones."""
        return models.build(self.name, pretrained=self.weights is None, weights=self.weights)


def report(args: argparse.Namespace) -> None:
    """Run the command; NaflowError or OSError before anything is written if an input is wrong."""
    out = Path(args.out)
    if len(args.photos) == 1 and is_results(args.photos[0]):
        from naflow_fx.dataset.report import write_report

        say(f"written: {write_report(args.photos[0], out)}, open it in a browser")
        return
    names, photos = _names(args.photos), [open_photo(photo) for photo in args.photos]
    chosen = [_named(text) for text in args.models]
    target = None if args.target is None else class_index(args.target)
    choose(args)
    device = open_device(args.device)
    if out.is_dir():
        raise OptionError(f"--out {out}: is a folder; give the name of a file")
    check_writable(out.parent / f".{out.name}")
    with progress() as bar, news_aside():
        task = bar.add_task("explaining", total=len(chosen) * len(photos))
        made = [
            _entry(model, photos, names, target, device, args, lambda: bar.advance(task))
            for model in chosen
        ]
    title = args.title or ", ".join(names)
    save_report(out, made, title=title, colormap=args.colormap, alpha=args.alpha)
    say(f"written: {out} ({out.stat().st_size / 1e6:.1f} MB), open it in a browser")


def _names(photos: Sequence[str]) -> list[str]:
    """What to call the photos: their files' names, numbered where two are the same."""
    found: list[str] = []
    for photo in photos:
        name, number = shown(Path(photo)), 1
        while (name if number == 1 else f"{name} ({number})") in found:
            number += 1
        found.append(name if number == 1 else f"{name} ({number})")
    return found


def _named(text: str) -> Named:
    name, _, weights = text.partition("=")
    return Named(name, weights or None, models.card(name, weights or None))


def _entry(
    model: Named,
    photos: Sequence[Image.Image],
    names: Sequence[str],
    target: int | None,
    device: torch.device,
    args: argparse.Namespace,
    on_photo: Callable[[], None],
) -> ReportEntry:
    """All photos explained by one model, one at a time: what is kept of a flow is large."""
    prepare = model.card.preprocessing
    inputs = [prepare(photo)[None].to(device) for photo in photos]
    keep = () if args.small or choose(args).get("method", "naflow") != "naflow" else DETAILS
    explainer: Explainer = naflow_fx.compile(
        model.build().to(device), inputs[0], keep=keep, **choose(args)
    )
    flows = []
    for image in inputs:
        flows.append(explainer(image, target=target).detach().cpu())
        on_photo()
    pictures = [seen(prepare, photo) for photo in photos]
    return ReportEntry(
        flows, pictures, model.name, names, explainer.inspect(), model.card.class_names
    )
