"""List the models, their public weights and input.

"256 > 224" is: the short side resized to 256 pixels, the central 224 x 224 cut out. Weights that
are downloaded stay in torch's cache; any model also takes a checkpoint file of your own.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.table import Table

from naflow_fx.cli.tables import plain_table, show

if TYPE_CHECKING:
    from naflow_fx.models.card import ModelCard
    from naflow_fx.models.preprocess import Preprocessing


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""


def models(args: argparse.Namespace) -> None:
    """Print every model's name, weights, input and licence, by where the weights come from."""
    from naflow_fx import models as zoo

    cards = [zoo.card(name) for name in zoo.names()]
    for source in dict.fromkeys(card.weights_source for card in cards):
        group = [card for card in cards if card.weights_source == source]
        licences = {card.licence for card in group}
        heading = f"weights: {source}" + (f"; {licences.pop()}" if len(licences) == 1 else "")
        show(*_tables(group), title=heading)


def _tables(cards: list[ModelCard]) -> Iterator[Table]:
    """Public weights by name, best first; or, got by hand, what the networks give, and where."""
    inputs = {card.name: input_text(card.preprocessing) for card in cards}
    if not cards[0].checkpoint:
        rows = [(c.name, ", ".join(c.weights) or "none", inputs[c.name]) for c in cards]
        yield plain_table(("name", "public weights", "input"), rows)
        return
    facts = [(c.name, c.output, inputs[c.name], c.licence) for c in cards]
    yield plain_table(("name", "output", "input", "repository's licence"), facts)
    yield plain_table(("name", "public checkpoint"), [(c.name, c.checkpoint) for c in cards])


def input_text(preprocessing: Preprocessing) -> str:
    """A preprocessing in a few words: "256 > 224 bilinear, mean and std of ImageNet"."""
    from naflow_fx.models.preprocess import Preprocessing

    size = preprocessing.resize
    resize = f"{size}" if isinstance(size, int) else " x ".join(map(str, size))
    if (preprocessing.mean, preprocessing.std) == (Preprocessing.mean, Preprocessing.std):
        scaling = "mean and std of ImageNet"
    else:
        mean, std = (_common(values) for values in (preprocessing.mean, preprocessing.std))
        scaling = f"(x - {mean}) / {std} of x in 0..{255 * preprocessing.scale:g}"
    return f"{resize} > {preprocessing.crop} {preprocessing.interpolation}, {scaling}"


def _common(values: tuple[float, ...]) -> str:
    """The channels' values, as one where they are the same."""
    return "/".join(f"{v:g}" for v in (values[:1] if len(set(values)) == 1 else values))
