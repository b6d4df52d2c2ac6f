"""The options of `naflow-fx compare`. No heavy import in here."""

from __future__ import annotations

from naflow_fx.cli.parsers.base import Commands, command
from naflow_fx.cli.parsers.options import add_pair_options

TEXT = "why are two photos alike? maps of both"
EXAMPLES = """\
what is written:
  DIR/<query>-<support>/grid.png     two rows of maps, one an image, from input to output
  DIR/<query>-<support>/maps/*.png   the same maps, the query at the left
  DIR/<query>-<support>/flow.json    similarity, names, shapes, residuals, options, versions

examples:
  naflow-fx compare cat.jpg other-cat.jpg
  naflow-fx compare cat.jpg dog.jpg --metric euclidean --layers 'head*' 'blocks.1?.add'
  naflow-fx compare a.jpg b.jpg --model resnet50_ms --weights my_checkpoint.pth
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command(commands, "compare", TEXT, EXAMPLES, "compare:compare", "QUERY SUPPORT")
    parser.add_argument("query", metavar="QUERY", help="a picture file")
    parser.add_argument("support", metavar="SUPPORT", help="what it is compared with")
    add_pair_options(parser)
