"""Options that several commands have. No heavy import in here."""

from __future__ import annotations

import argparse
from typing import Any, get_args

from naflow_fx import options
from naflow_fx.cli.parser import Options, count, folder, key, option, pair, share

MODEL_HELP = """one of `naflow-fx models` (default: efficientnet_lite0, bundled); timm/NAME;
hf/NAME or hf/./FOLDER, of transformers; file.py:Name or package.module:name, a class or function of
yours; file.pt2 of torch.export; file.onnx"""
WEIGHTS_HELP = """a checkpoint file, public weights by name, or none: as the network is made
(default: the best public ones)"""
AT_HELP = """where the embedding is (default: what a classifier's last fully connected layer reads;
an encoder's output)"""
COLORMAPS = ("inferno", "magma", "viridis", "jet", "gray")
METRICS, POOLS = ("cosine", "dot", "euclidean"), ("flatten", "mean")
SHEET = 12  # layers that are drawn where nobody says which
DRAWN = "all are computed, twelve of them drawn"


def add_model_options(
    parser: argparse.ArgumentParser, artefact: bool = False, layers: str = "all"
) -> None:
    """Options that choose the network, or an artefact of one, and its layers."""
    group = parser.add_argument_group("the network")
    choice = group.add_mutually_exclusive_group()
    if artefact:
        text = "a file that `naflow-fx export` wrote: the network with its explainer"
        option(choice, "--artefact FILE", text)
        text = "load --artefact even if it can run code, as every compiled package does"
        option(group, "--trusted", text)
    option(choice, "--model NAME", MODEL_HELP)
    option(group, "--weights FILE|NAME|none", WEIGHTS_HELP)
    text = "what the network's class or function is called with"
    option(group, "--model-args NAME=VALUE...", text, pair)
    text = "a TOML file that holds all of this; `naflow-fx inspect --save-subject` writes one"
    option(group, "--subject FILE", text)
    text = f"only these layers: names or patterns, quoted, such as 'layer4.*' (default: {layers})"
    option(group, "--layers GLOB...", text)
    _add_input_options(parser)


def _add_input_options(parser: argparse.ArgumentParser) -> None:
    """Options that tell how photos become inputs and what the classes are called."""
    group = parser.add_argument_group("what the network takes and gives (default: as it is known)")
    text = "names of the classes: one a line, or JSON, a list or {number: name}"
    option(group, "--classes FILE", text)
    option(group, "--size PIXELS", "of the input's side", count)
    for name in ("mean", "std"):
        text = "of the channels, or one for all, of pixels in 0..1"
        option(group, f"--{name} X...", text, float)
    option(group, "--channels", "1: photos are made grey; 3: colours", (1, 3), type=int)
    text = "a function instead, photo (a PIL image, RGB) -> tensor [C, H, W]"
    option(group, "--preprocess FILE.py:NAME", text)
    text = "which of several outputs is explained: a key, or a number from 0 on"
    option(group, "--output KEY|INDEX", text, key)


def add_method_options(parser: argparse.ArgumentParser, several: bool = False) -> None:
    """Options that choose how maps are computed; several: by one or several methods."""
    group = parser.add_argument_group("how maps are computed")
    one: Any = group.add_mutually_exclusive_group() if several else group
    methods = get_args(options.Method)
    option(one, "--method", "(default: naflow)", methods)
    if several:
        option(one, "--methods METHOD...", "several, beside each other", methods)
    text = "sum: max(0, .) of the sum over channels; channelwise: the sum of max(0, .)"
    option(group, "--reduction", text, get_args(options.Reduction))
    text = "of the least squares, relative to the largest singular value squared"
    option(group, "--damping X", f"{text} (default: {options.Inverse().damping})", float)
    option(group, "--steps N", "of the solver (default: what the damping needs)", int)
    text = "what dense layers multiply in while the inverse is solved (default: auto)"
    option(group, "--precision", text, get_args(options.Precision))
    text = "output neurons that have an equation: those that take part, all, or the first p"
    option(group, "--rows", text, get_args(options.Rows))
    for name in filter(str.isidentifier, options.REMOVED):
        parser.add_argument(f"--{name}", action=Removed, help=argparse.SUPPRESS)


class Removed(argparse.Action):
    """An option that an earlier version had: an error that names what serves now."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Ends the program."""
        parser.error(f"--{self.dest} was removed; {options.REMOVED[self.dest]}")


def add_out(parser: argparse.ArgumentParser) -> None:
    """--out, the folder that is written to."""
    option(parser, "--out DIR", "where to write", folder, "naflow_out")


def add_device(to: Options) -> None:
    """--device, what computes."""
    option(to, "--device D", "cpu, cuda, cuda:1, mps, ...", default="cpu")


def add_colours(parser: argparse.ArgumentParser, colormap: str, alpha: str) -> None:
    """--colormap and --alpha, with their help texts."""
    option(parser, "--colormap", colormap, COLORMAPS, COLORMAPS[0])
    option(parser, "--alpha A", alpha, share, 0.5)


def add_picture_options(parser: argparse.ArgumentParser) -> None:
    """Options that choose where pictures go, how they look and what computes them."""
    add_out(parser)
    add_device(parser)
    safe = "(default: %(default)s, safe for the colour-blind)"
    add_colours(parser, safe, "share of the colours over the photo, 0 to 1")


def add_pair_options(parser: argparse.ArgumentParser) -> None:
    """Options of every command that compares: pictures, similarity, network, method."""
    add_picture_options(parser)
    group = parser.add_argument_group("what is compared")
    option(group, "--metric", "", METRICS, METRICS[0])
    option(group, "--at LAYER", AT_HELP)
    option(group, "--pool", "of an embedding that is a feature map", POOLS, POOLS[0])
    add_model_options(parser, layers=DRAWN)
    add_method_options(parser, several=True)
