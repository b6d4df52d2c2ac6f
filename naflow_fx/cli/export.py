"""`naflow-fx export`: a network's explainer as one file."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from naflow_fx import models
from naflow_fx.artefacts import ENDINGS, KINDS
from naflow_fx.artefacts.files import check_name
from naflow_fx.cli.info import size_text
from naflow_fx.cli.progress import news_aside, progress
from naflow_fx.cli.setup import choose, compile_model, open_device
from naflow_fx.models.preprocess import class_names
from naflow_fx.view.terminal import say


def export(args: argparse.Namespace) -> None:
    """Run the command; a NaflowError or OSError leaves nothing half-written."""
    path = Path(args.out)
    check_name(path, ENDINGS[args.format])
    card = models.card(args.model, args.weights)
    device = open_device(args.device)
    choose(args)
    size = card.preprocessing.crop
    example = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with progress(count=False) as bar:
        bar.add_task(f"{args.model} as {KINDS[args.format]}", total=None)
        with news_aside():
            model = models.build(args.model, pretrained=args.weights is None, weights=args.weights)
        explainer = compile_model(model.to(device), example.to(device), args)
        write = {"pt2": explainer.export, "aoti": explainer.package, "onnx": explainer.to_onnx}
        write[args.format](
            path,
            preprocessing=card.preprocessing,
            class_names=class_names() if card.num_classes == len(class_names()) else None,
            info={
                "model": args.model,
                "weights": args.weights or next(iter(card.weights), None),
            },
        )
    say(f"written: {path}, {KINDS[args.format]}, {size_text(path)}")
