"""The options of `naflow-fx few-shot`. No heavy import in here."""

from __future__ import annotations

from naflow_fx.cli.parsers.base import Commands, command, count
from naflow_fx.cli.parsers.options import add_pair_options

SHOTS, TEMPERATURE = 5, 10.0

TEXT = "classify photos by a few examples of each class, and why"
EXAMPLES = """\
The support folder has a folder for each class, with its pictures. A photo goes to the class
whose mean embedding is most alike; the logits are temperature x similarity.

what is written, for each query, as `compare` does, a row for the query and for each shot:
  DIR/<query>/grid.png, maps/*.png, flow.json

examples:
  naflow-fx few-shot --support animals/ --query photo.jpg
  naflow-fx few-shot --support animals/ --query *.jpg --shots 1 --match cat
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command(
        commands, "few-shot", TEXT, EXAMPLES, "few_shot:few_shot", "--support DIR --query PHOTO..."
    )
    parser.add_argument(
        "--support", required=True, metavar="DIR", help="a folder with a folder for each class"
    )
    parser.add_argument(
        "--query", required=True, nargs="+", metavar="PHOTO", help="picture files to classify"
    )
    parser.add_argument(
        "--shots",
        type=count,
        default=SHOTS,
        metavar="N",
        help="pictures of each class, its first by name (default: at most %(default)s)",
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=TEMPERATURE,
        metavar="T",
        help="of the logits (default: %(default)s)",
    )
    parser.add_argument(
        "--match", metavar="CLASS", help="the class to compare with (default: the predicted one)"
    )
    add_pair_options(parser)
