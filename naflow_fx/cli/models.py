"""`naflow-fx models`: the networks, their public weights and input."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rich.table import Table

from naflow_fx.cli.base import Commands, command
from naflow_fx.cli.tables import plain_table, show

if TYPE_CHECKING:
    from naflow_fx.models.card import ModelCard
    from naflow_fx.models.preprocess import Preprocessing

TEXT = "list the models, their public weights and input"
NOTE = """\
"256 > 224" is: the short side resized to 256 pixels, the central 224 x 224 cut out. Weights that
are downloaded stay in torch's cache; any model also takes a checkpoint file of your own.
"""


def add(commands: Commands) -> None:
    """Add the command."""
    command(commands, models, TEXT, NOTE)


def models(args: argparse.Namespace) -> None:
    """Print every model's name, weights, input and licence, by where the weights come from."""
    from naflow_fx import models as zoo

    cards = [zoo.card(name) for name in zoo.names()]
    for source in dict.fromkeys(card.weights_source for card in cards):
        group = [card for card in cards if card.weights_source == source]
        licences = {card.licence for card in group}
        heading = f"weights: {source}" + (f"; {licences.pop()}" if len(licences) == 1 else "")
        show(*(_by_hand(group) if group[0].checkpoint else [_by_name(group)]), title=heading)


def _by_name(cards: list[ModelCard]) -> Table:
    """Models whose public weights have names, best first."""
    table = plain_table("name", "public weights", "input")
    for card in cards:
        weights = ", ".join(card.weights) or "none"
        table.add_row(card.name, weights, input_text(card.preprocessing))
    return table


def _by_hand(cards: list[ModelCard]) -> list[Table]:
    """Models whose checkpoint files, where there are any, are to be had elsewhere; two tables."""
    facts = plain_table("name", "output", "input", "repository's licence")
    places = plain_table("name", "public checkpoint")
    for card in cards:
        facts.add_row(card.name, card.output, input_text(card.preprocessing), card.licence)
        places.add_row(card.name, card.checkpoint)
    return [facts, places]


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
