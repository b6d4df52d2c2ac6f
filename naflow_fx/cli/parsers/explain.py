"""The options of `naflow-fx explain`. No heavy import in here."""

from __future__ import annotations

from naflow_fx.cli.parsers.base import Commands, command
from naflow_fx.cli.parsers.options import add_method_options, add_model_options, add_picture_options

TEXT = "explain photos: pictures and numbers of every layer"
EXAMPLES = """\
what is written, for each photo:
  DIR/<photo>/grid.png     the photo, then the map of every layer over it, from input to output
  DIR/<photo>/maps/*.png   the same maps, one picture each
  DIR/<photo>/flow.json    names, shapes, score, top 5, residuals, norm ratios, options, versions
DIR/<photo>-2, ... where DIR/<photo> has the maps of another photo, class or choice of options.

examples:
  naflow-fx explain cat.jpg
  naflow-fx explain cat.jpg dog.jpg --target "tabby" --out pictures
  naflow-fx explain cat.jpg --layers 'blocks.1?.*' --method layercam
  naflow-fx explain cat.jpg --model resnet50 --weights IMAGENET1K_V2 --device cuda
  naflow-fx explain cat.jpg --model resnet18 --weights my_training.pt
  naflow-fx explain cat.jpg --reduction channelwise --weight importance --damping 0.01 --steps 20
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command(commands, "explain", TEXT, EXAMPLES, "explain:explain", "PHOTO...")
    parser.add_argument(
        "photos", nargs="+", metavar="PHOTO", help="picture files, before the options"
    )
    parser.add_argument(
        "--target",
        metavar="CLASS|NAME",
        help="ImageNet class to explain, a number or a name (default: the predicted one)",
    )
    add_picture_options(parser)
    add_model_options(parser, artefact=True)
    add_method_options(parser)
