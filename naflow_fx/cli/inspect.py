"""`naflow-fx inspect`: the program of a network, without explaining a photo."""

from __future__ import annotations

import argparse

import torch

from naflow_fx import models as zoo
from naflow_fx.cli.setup import compile_model


def inspect(args: argparse.Namespace) -> None:
    """Print the report of the explainer; without --weights on random ones, nothing is fetched."""
    preprocessing = zoo.card(args.model, args.weights).preprocessing
    model = zoo.build(args.model, weights=args.weights)
    example = torch.zeros(1, 3, preprocessing.crop, preprocessing.crop)
    print(compile_model(model, example, args).inspect())
