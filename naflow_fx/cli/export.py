"""Write a network with its explainer as one file: PyTorch, compiled, or ONNX.

formats, all with the signature (image [N, 3, H, W], target int64 [N], -1: the predicted class):
  pt2    torch.export: torch.export.load(FILE).module()(image, target), any device
  aoti   compiled by AOTInductor for --device, for Python and C++; can take minutes;
         machine code: `explain --artefact FILE --trusted`
  onnx   for onnxruntime and others; needs pip install 'naflow-fx[onnx]'

examples:
  naflow-fx export --format pt2 --out explainer.pt2
  naflow-fx export --format onnx --model resnet18 --layers 'layer4.*' --out explainer.onnx
  naflow-fx info explainer.onnx
  naflow-fx explain cat.jpg --artefact explainer.onnx
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from naflow_fx.cli.info import size_text
from naflow_fx.cli.options import add_device, add_method_options, add_model_options
from naflow_fx.cli.parser import named, option
from naflow_fx.cli.setup import choose, open_subject
from naflow_fx.cli.tables import waiting
from naflow_fx.errors import OptionError
from naflow_fx.options import open_device
from naflow_fx.view.terminal import say

FORMATS = ("pt2", "aoti", "onnx")


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    option(parser, "--format", "of the file, see below", FORMATS, required=True)
    option(parser, "--out FILE", "ends in .pt2 (pt2, aoti) or .onnx", named, required=True)
    add_device(parser)
    add_model_options(parser)
    add_method_options(parser)


def export(args: argparse.Namespace) -> None:
    """Run the command; a NaflowError or OSError leaves nothing half-written."""
    import torch

    from naflow_fx.artefacts import ENDINGS, KINDS, check_name
    from naflow_fx.models.preprocess import Preprocessing
    from naflow_fx.subjects import ArtefactSubject

    path = Path(args.out)
    check_name(path, ENDINGS[args.format])
    subject, options = open_subject(args), choose(args)
    device = open_device(args.device)
    prepare, shape = subject.preprocessing, subject.example().shape
    example = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    if isinstance(subject, ArtefactSubject):
        raise OptionError(f"{subject.path}: has been exported; give the network it was made of")
    with waiting(f"{subject.name} as {KINDS[args.format]}"):
        explainer: Any = subject.program(example.to(device), **options)
        write = {"pt2": explainer.export, "aoti": explainer.package, "onnx": explainer.to_onnx}
        known = prepare if isinstance(prepare, Preprocessing) else None
        write[args.format](
            path, preprocessing=known, class_names=subject.class_names or None, info=subject.facts
        )
    say(f"written: {path}, {KINDS[args.format]}, {size_text(path)}")
