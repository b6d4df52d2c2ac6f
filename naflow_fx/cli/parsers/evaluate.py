"""The options of `naflow-fx evaluate`. No heavy import in here."""

from __future__ import annotations

import argparse

from naflow_fx.cli.parsers.base import Commands, command, count, folder
from naflow_fx.cli.parsers.options import DEVICE_HELP, add_model_options

TEXT = "measure how good maps are, method by method and layer by layer"
DATA = ("check", "choose", "synthetic", "voc", "coco", "imagenet", "cub200")
METHODS = ("naflow", "naflow-channelwise", "focused", "layercam", "hirescam", "gradcam")
METRICS = ("energy", "pointing", "i_d", "residual")
EXAMPLES = """\
data:
  check, choose   photos that installed packages ship, with boxes drawn by hand: those to report
                  on, and those to choose methods by; needs pip install 'naflow-fx[evaluate]'
  synthetic       pictures with known evidence, and a small CNN trained on them, in a minute
  voc             --root DIR of VOCdevkit, --classes FILE: {"dog": 207, ...}, the network's numbers
  coco            --root DIR of photos, --annotations instances_val2017.json, --classes FILE
  imagenet        --root DIR of class folders, --annotations DIR of their .xml boxes
  cub200          --root CUB_200_2011, for a network of its 200 birds

what is written:
  DIR/evaluation.json   every figure, of each method, metric, layer and image
  DIR/evaluation.md     the tables, with 95 % intervals of a bootstrap over photos
  DIR/curves.png        each metric against the depth; where matplotlib is installed

examples:
  naflow-fx evaluate
  naflow-fx evaluate --data synthetic --methods naflow lrp rise --metrics energy i_d
  naflow-fx evaluate --layers '*.add' --limit 4 --sanity
  naflow-fx evaluate --methods score-cam ablation-cam layercam --layers blocks.15.project_bn
  naflow-fx evaluate --data cub200 --root CUB_200_2011 --model resnet50 --weights birds.pt
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command(commands, "evaluate", TEXT, EXAMPLES, "evaluate:evaluate")
    parser.add_argument(
        "--out",
        type=folder,
        default="naflow_out",
        metavar="DIR",
        help="where to write (default: %(default)s)",
    )
    parser.add_argument("--device", default="cpu", metavar="D", help=DEVICE_HELP)
    add_data_options(parser)
    group = parser.add_argument_group("what is measured")
    group.add_argument(
        "--methods",
        nargs="+",
        default=METHODS,
        metavar="NAME",
        help=f"naflow-all, peers, ...: an unknown one lists them (default: {' '.join(METHODS)})",
    )
    group.add_argument(
        "--metrics",
        nargs="+",
        default=METRICS,
        metavar="NAME",
        help=f"energy, pointing, insertion, road, fidelity, ... (default: {' '.join(METRICS)})",
    )
    text = "also: how far maps change with random weights, for another class"
    group.add_argument("--sanity", action="store_true", help=text)
    add_model_options(parser, layers="seven, evenly over the depth")


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Options that choose the images."""
    group = parser.add_argument_group("the data")
    group.add_argument("--data", choices=DATA, default=DATA[0], help="(default: %(default)s)")
    group.add_argument("--root", metavar="DIR", help="where the data set lies")
    group.add_argument("--annotations", metavar="PATH", help="its boxes: a file or a folder")
    group.add_argument(
        "--classes", metavar="FILE", help="JSON: the data set's classes -> the network's numbers"
    )
    group.add_argument("--limit", type=count, metavar="N", help="images, at most")
