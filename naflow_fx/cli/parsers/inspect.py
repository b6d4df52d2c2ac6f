"""The options of `naflow-fx inspect`. No heavy import in here."""

from __future__ import annotations

from naflow_fx.cli.parsers.base import Commands, command, named
from naflow_fx.cli.parsers.options import add_method_options, add_model_options

TEXT = "print the layers and how each is explained, or draw them"
FORMATS = ("table", "svg", "png", "pdf", "dot", "json", "html")
EXAMPLES = """\
examples:
  naflow-fx inspect
  naflow-fx inspect --model resnet18 --layers 'layer4.*'
  naflow-fx inspect --photo cat.jpg                          with residuals and norm ratios
  naflow-fx inspect --model resnet50 --out resnet50.svg      svg, png and pdf need Graphviz
  naflow-fx inspect --model resnet50 --expand 'layer3.[01]' --out layer3.svg
  naflow-fx inspect --only blocks.2 --out block.png
  naflow-fx inspect --out inverse.html                       folding, in the browser
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command(commands, "inspect", TEXT, EXAMPLES, "inspect:inspect")
    parser.add_argument(
        "--format", choices=FORMATS, help="(default: as the name of --out ends; else table)"
    )
    parser.add_argument(
        "--out",
        type=named,
        metavar="FILE",
        help="where to write (default: the terminal; of html, inspect.html)",
    )
    parser.add_argument(
        "--photo",
        metavar="PHOTO",
        help="a picture file to run, for residuals and norm ratios; on the best public weights",
    )
    parser.add_argument(
        "--expand",
        nargs="+",
        metavar="GLOB",
        help="of pictures: blocks to draw layer by layer (default: as many as stay readable)",
    )
    parser.add_argument("--only", metavar="BLOCK", help="of pictures: one block alone")
    add_model_options(parser)
    add_method_options(parser)
