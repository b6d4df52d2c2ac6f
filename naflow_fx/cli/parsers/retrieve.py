"""The options of `naflow-fx retrieve`. No heavy import in here."""

from __future__ import annotations

from naflow_fx.cli.parsers.base import Commands, command, count
from naflow_fx.cli.parsers.options import add_pair_options

TEXT = "find the photos of a folder that are most alike, and why"
EXAMPLES = """\
GALLERY is searched with its subfolders for pictures (.png, .jpg, .webp, .tif, .bmp, .gif, ...).
Those that can't be read are named and left out; so are the query itself and what is in --out.

what is written, for each hit, best first, as `compare` does:
  DIR/<query>/1/grid.png, maps/*.png, flow.json; DIR/<query>/2/...

examples:
  naflow-fx retrieve cat.jpg photos/
  naflow-fx retrieve cat.jpg photos/ --top-k 3 --model resnet50 --weights IMAGENET1K_V2
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command(commands, "retrieve", TEXT, EXAMPLES, "retrieve:retrieve", "QUERY GALLERY")
    parser.add_argument("query", metavar="QUERY", help="a picture file")
    parser.add_argument("gallery", metavar="GALLERY", help="a folder of pictures")
    parser.add_argument(
        "--top-k", type=count, default=5, metavar="K", help="hits (default: %(default)s)"
    )
    add_pair_options(parser)
