"""Options that several commands have. No heavy import in here."""

from __future__ import annotations

import argparse
from typing import Any, get_args

from naflow_fx import options
from naflow_fx.cli.base import count, folder, key, pair, share

MODEL_HELP = """one of `naflow-fx models` (default: efficientnet_lite0, bundled); timm/NAME;
hf/NAME or hf/./FOLDER, of transformers; file.py:Name or package.module:name, a class or function of
yours; file.pt2 of torch.export; file.onnx"""
DEVICE_HELP = "cpu, cuda, cuda:1, mps, ... (default: %(default)s)"
COLORMAPS = ("inferno", "magma", "viridis", "jet", "gray")
METRICS, POOLS = ("cosine", "dot", "euclidean"), ("flatten", "mean")


def add_model_options(
    parser: argparse.ArgumentParser, artefact: bool = False, layers: str = "all"
) -> None:
    """Options that choose the network, or an artefact of one, and its layers."""
    group = parser.add_argument_group("the network")
    choice = group.add_mutually_exclusive_group()
    if artefact:
        text = "a file that `naflow-fx export` wrote: the network with its explainer"
        choice.add_argument("--artefact", metavar="FILE", help=text)
        text = "load --artefact even if it can run code, as every compiled package does"
        group.add_argument("--trusted", action="store_true", help=text)
    choice.add_argument("--model", metavar="NAME", help=MODEL_HELP)
    group.add_argument(
        "--weights",
        metavar="FILE|NAME|none",
        help="a checkpoint file, public weights by name, or none: as the network is made "
        "(default: the best public ones)",
    )
    group.add_argument(
        "--model-args",
        nargs="+",
        type=pair,
        metavar="NAME=VALUE",
        help="what the network's class or function is called with",
    )
    text = "a TOML file that holds all of this; `naflow-fx inspect --save-subject` writes one"
    group.add_argument("--subject", metavar="FILE", help=text)
    group.add_argument(
        "--layers",
        nargs="+",
        metavar="GLOB",
        help="only these layers: names or patterns, quoted, such as 'layer4.*' "
        f"(default: {layers})",
    )
    _add_input_options(parser)


def _add_input_options(parser: argparse.ArgumentParser) -> None:
    """Options that tell how photos become inputs and what the classes are called."""
    group = parser.add_argument_group("what the network takes and gives (default: as it is known)")
    text = "names of the classes: one a line, or JSON, a list or {number: name}"
    group.add_argument("--classes", metavar="FILE", help=text)
    group.add_argument("--size", type=count, metavar="PIXELS", help="of the input's side")
    for name in ("mean", "std"):
        text = "of the channels, or one for all, of pixels in 0..1"
        group.add_argument(f"--{name}", nargs="+", type=float, metavar="X", help=text)
    group.add_argument(
        "--channels", type=int, choices=(1, 3), help="1: photos are made grey; 3: colours"
    )
    group.add_argument(
        "--preprocess",
        metavar="FILE.py:NAME",
        help="a function instead, photo (a PIL image, RGB) -> tensor [C, H, W]",
    )
    text = "which of several outputs is explained: a key, or a number from 0 on"
    group.add_argument("--output", type=key, metavar="KEY|INDEX", help=text)


def add_method_options(parser: argparse.ArgumentParser, several: bool = False) -> None:
    """Options that choose how maps are computed; several: by one or several methods."""
    group = parser.add_argument_group("how maps are computed")
    one: Any = group.add_mutually_exclusive_group() if several else group
    methods = get_args(options.Method)
    one.add_argument("--method", choices=methods, help="(default: naflow)")
    if several:
        text = "several, beside each other"
        one.add_argument("--methods", nargs="+", choices=methods, metavar="METHOD", help=text)
    group.add_argument(
        "--reduction",
        choices=get_args(options.Reduction),
        help="sum: max(0, .) of the sum over channels; channelwise: the sum of max(0, .)",
    )
    group.add_argument(
        "--damping",
        type=float,
        metavar="X",
        help="of the least squares, relative to the largest singular value squared (default: "
        f"{options.Inverse().damping})",
    )
    group.add_argument(
        "--steps", type=int, metavar="N", help="of the solver (default: what the damping needs)"
    )
    group.add_argument(
        "--precision",
        choices=get_args(options.Precision),
        help="what dense layers multiply in while the inverse is solved (default: auto)",
    )
    group.add_argument(
        "--rows",
        choices=get_args(options.Rows),
        help="output neurons that have an equation: those that take part, all, or the first p",
    )
    for name, text in options.REMOVED.items():
        if name.isidentifier():
            parser.add_argument(f"--{name}", action=Removed, text=text, help=argparse.SUPPRESS)


class Removed(argparse.Action):
    """An option that an earlier version had: an error that names what serves now."""

    def __init__(self, *args: Any, text: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.text = text

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Ends the program."""
        parser.error(f"{self.option_strings[0]} was removed; {self.text}")


def add_place_options(parser: argparse.ArgumentParser) -> None:
    """Options that choose where files go, and what computes."""
    parser.add_argument(
        "--out",
        type=folder,
        default="naflow_out",
        metavar="DIR",
        help="where to write (default: %(default)s)",
    )
    parser.add_argument("--device", default="cpu", metavar="D", help=DEVICE_HELP)


def add_picture_options(parser: argparse.ArgumentParser) -> None:
    """Options that choose where pictures go, how they look and what computes them."""
    add_place_options(parser)
    parser.add_argument(
        "--colormap",
        choices=COLORMAPS,
        default=COLORMAPS[0],
        help="(default: %(default)s, safe for the colour-blind)",
    )
    parser.add_argument(
        "--alpha",
        type=share,
        default=0.5,
        metavar="A",
        help="share of the colours over the photo, 0 to 1 (default: %(default)s)",
    )


def add_pair_options(parser: argparse.ArgumentParser) -> None:
    """Options of every command that compares: pictures, similarity, network, method."""
    add_picture_options(parser)
    group = parser.add_argument_group("what is compared")
    group.add_argument(
        "--metric", choices=METRICS, default=METRICS[0], help="(default: %(default)s)"
    )
    group.add_argument(
        "--at",
        metavar="LAYER",
        help="where the embedding is (default: what a classifier's last fully connected layer "
        "reads; an encoder's output)",
    )
    group.add_argument(
        "--pool",
        choices=POOLS,
        default=POOLS[0],
        help="of an embedding that is a feature map (default: %(default)s)",
    )
    add_model_options(parser)
    add_method_options(parser, several=True)
