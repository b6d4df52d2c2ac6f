"""The options of `naflow-fx inspect`. No heavy import in here."""

from __future__ import annotations

from naflow_fx.cli.parsers.base import Commands, command
from naflow_fx.cli.parsers.options import add_method_options, add_model_options

TEXT = "print the layers and how each is explained"
EXAMPLES = """\
examples:
  naflow-fx inspect
  naflow-fx inspect --model resnet18 --layers 'layer4.*'
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command(commands, "inspect", TEXT, EXAMPLES, "inspect:inspect")
    add_model_options(parser)
    add_method_options(parser)
