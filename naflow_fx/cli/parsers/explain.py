"""The options of `naflow-fx explain`. No heavy import in here."""

from __future__ import annotations

from naflow_fx.cli.parsers.base import Commands, command
from naflow_fx.cli.parsers.options import add_method_options, add_model_options, add_picture_options

TEXT = "explain photos: what each layer looks at, from the input to the decision"
EXAMPLES = """\
what is written, for each photo:
  DIR/<photo>/grid.png     the photo, then the maps of twelve layers over it, from input to output
  DIR/<photo>/maps/*.png   the same maps, one picture each
  DIR/<photo>/flow.json    of every layer: name, shape, residual, norm ratio; score, top 5, options
DIR/<photo>-2, ... where DIR/<photo> has the maps of another photo, class or choice of options.

examples:
  naflow-fx explain cat.jpg
  naflow-fx explain cat.jpg dog.jpg --target "tabby" --out pictures
  naflow-fx explain cat.jpg --layers all
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
    parser.add_argument(
        "--verbose", action="store_true", help="print a table of all layers with their numbers"
    )
    add_model_options(parser, artefact=True, layers="all are computed, twelve of them drawn")
    add_method_options(parser)
