"""The options of `naflow-fx decompose`. No heavy import in here."""

from __future__ import annotations

from naflow_fx.cli.parsers.base import Commands, command, count, folder
from naflow_fx.cli.parsers.options import DEVICE_HELP, add_model_options

TEXT = "which channels does a decision rest on? a tree, layer by layer"
EXAMPLES = """\
what is written:
  DIR/<photo>/decomposition.html   the tree, to unfold: maps, patches, shares; needs no network
  DIR/<photo>/decomposition.json   the same as numbers, maps included

Every path from the photo to the score must pass the layers; by default they are the ends of the
network's last four stages.

examples:
  naflow-fx decompose cat.jpg
  naflow-fx decompose cat.jpg --target "tabby" --top-k 5 --layers head_act blocks.10.add
  naflow-fx decompose cat.jpg --model resnet50 --weights IMAGENET1K_V2
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command(commands, "decompose", TEXT, EXAMPLES, "decompose:decompose", "PHOTO")
    parser.add_argument("photo", metavar="PHOTO", help="a picture file")
    parser.add_argument(
        "--target",
        metavar="CLASS|NAME",
        help="ImageNet class to explain, a number or a name (default: the predicted one)",
    )
    parser.add_argument(
        "--top-k", type=count, default=3, metavar="K",
        help="channels that each node rests on, at most (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--out",
        type=folder,
        default="naflow_out",
        metavar="DIR",
        help="where to write (default: %(default)s)",
    )
    parser.add_argument("--device", default="cpu", metavar="D", help=DEVICE_HELP)
    add_model_options(parser, layers="the ends of the last four stages")
