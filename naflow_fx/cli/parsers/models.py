"""The options of `naflow-fx models`. No heavy import in here."""

from __future__ import annotations

from naflow_fx.cli.parsers.base import Commands, command

TEXT = "list the models, their public weights and input"
NOTE = """\
"256 > 224" is: the short side resized to 256 pixels, the central 224 x 224 cut out. Weights that
are downloaded stay in torch's cache; any model also takes a checkpoint file of your own.
"""


def add(commands: Commands) -> None:
    """Add the command."""
    command(commands, "models", TEXT, NOTE, "models:models")
