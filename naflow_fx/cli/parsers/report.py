"""The options of `naflow-fx report`. No heavy import in here."""

from __future__ import annotations

from naflow_fx.cli.parsers.base import Commands, command, named, share
from naflow_fx.cli.parsers.options import (
    COLORMAPS,
    DEFAULT_MODEL,
    DEVICE_HELP,
    add_method_options,
)

TEXT = "one page for the browser: photos and models side by side, layer by layer"
EXAMPLES = """\
what is written: one HTML file that needs no network, with the photos, the maps of every layer
(a scrubber, a play button, keys: press ? there), curves along depth, and the inverse graphs.

examples:
  naflow-fx report cat.jpg
  naflow-fx report cat.jpg dog.jpg --models resnet18 resnet50 --out animals.html
  naflow-fx report results/       of `naflow-fx batch`: classes, depth, unusual photos, residuals
  naflow-fx report cat.jpg --models resnet50 resnet50_cbam=cbam.pth resnet50_bam=bam.pth
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command(commands, "report", TEXT, EXAMPLES, "report:report", "PHOTO...")
    parser.add_argument(
        "photos",
        nargs="+",
        metavar="PHOTO",
        help="picture files, first of all; or one folder of `naflow-fx batch`",
    )
    parser.add_argument(
        "--models",
        nargs="+",
        default=[DEFAULT_MODEL],
        metavar="NAME[=WEIGHTS]",
        help="names of `naflow-fx models`, each with a checkpoint file or the name of public "
        "weights if not the best ones are meant (default: the bundled model)",
    )
    parser.add_argument(
        "--out",
        type=named,
        default="report.html",
        metavar="FILE",
        help="what to write (default: %(default)s)",
    )
    parser.add_argument("--title", help="heading of the page (default: the photos' names)")
    parser.add_argument(
        "--target",
        metavar="CLASS|NAME",
        help="ImageNet class to explain, a number or a name (default: each model's prediction)",
    )
    parser.add_argument(
        "--small",
        action="store_true",
        help="a smaller file: without energy of Z, top channels and abandoned neurons",
    )
    parser.add_argument("--layers", nargs="+", metavar="GLOB", help="only these layers")
    parser.add_argument("--device", default="cpu", metavar="D", help=DEVICE_HELP)
    text = "to start with (default: %(default)s)"
    parser.add_argument("--colormap", choices=COLORMAPS, default=COLORMAPS[0], help=text)
    parser.add_argument("--alpha", type=share, default=0.5, metavar="A", help=text)
    add_method_options(parser)
