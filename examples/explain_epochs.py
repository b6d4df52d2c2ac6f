"""Trains a small network and explains it after every epoch, with one explainer.

    python examples/explain_epochs.py [--epochs 6] [--steps 20] [--out epochs.png]

The pictures are drawn (naflow_fx.evaluation.synthetic): a patterned shape, which decides, among
clutter.  The explainer is made once, before training; it notices that weights have changed.  The
figure has a row a picture and a column an epoch, first the untrained network; beside an epoch
stands how many of 120 unseen pictures the network tells, and how much of the maps lies on the
shapes.  A minute on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor, nn

import naflow_fx as nf
from naflow_fx.evaluation.synthetic import PATTERNS, SmallCNN, draw

LAYER = "1.relu_1"
ZOOM, TOP, GAP = 3, 30, 4  # pixels of the figure: of one of a picture's, of the captions, between


def epoch(network: nn.Module, optimiser: torch.optim.Optimizer, seeds: Sequence[int]) -> None:
    """One batch of new pictures for each seed."""
    network.train()
    for seed in seeds:
        images, target, _ = draw(32, seed, faded=True)
        optimiser.zero_grad()
        F.cross_entropy(network(images), target).backward()
        optimiser.step()
    network.eval()


@torch.no_grad()
def accuracy(network: nn.Module) -> float:
    """The share of 120 pictures that training never draws."""
    images, target, _ = draw(120, 9)
    return float((network(images).argmax(1) == target).float().mean())


def share_on(mask: Tensor, maps: Tensor) -> float:
    """How much of maps [N, H, W] lies on masks [N, H, W]."""
    return float((maps * mask).sum() / maps.sum().clamp_min(1e-9))


def sheet(columns: Sequence[tuple[str, np.ndarray]]) -> Image.Image:
    """Pictures [N, H, W, 3] side by side under their captions (two lines)."""
    made = []
    for caption, pictures in columns:
        rows = np.repeat(np.repeat(pictures, ZOOM, 1), ZOOM, 2)
        count, height, width, _ = rows.shape
        column = Image.new("RGB", (width + GAP, TOP + count * (height + GAP)), "white")
        ImageDraw.Draw(column).text((2, 2), caption, "black")
        for i, picture in enumerate(rows):
            column.paste(Image.fromarray(picture), (0, TOP + i * (height + GAP)))
        made.append(np.asarray(column))
    return Image.fromarray(np.concatenate(made, 1))


def main(argv: Sequence[str] | None = None) -> None:
    """Trains, explains, writes the figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--steps", type=int, default=20, help="batches an epoch")
    parser.add_argument("--out", type=Path, default=Path("epochs.png"))
    options = parser.parse_args(argv)

    torch.manual_seed(0)
    network, (shown, target, mask) = SmallCNN().eval(), draw(len(PATTERNS), 1)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    explainer = nf.compile(network, shown, layers=LAYER)
    columns = []
    for i in range(options.epochs + 1):
        flow = explainer(shown, target)
        on = share_on(mask, flow.upsampled()[LAYER])
        caption = f"epoch {i}\n{accuracy(network):.0%} right, {on:.0%} on it"
        columns.append((caption, flow.overlay(shown)[LAYER]))
        print(caption.replace("\n", ": "))
        if i < options.epochs:
            first = 1000 + i * options.steps
            epoch(network, optimiser, range(first, first + options.steps))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    sheet(columns).save(options.out)
    print(options.out)


if __name__ == "__main__":
    main()
