"""What the command line takes: commands, options and their help. No heavy import in here."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import NoReturn, get_args

from naflow_fx import options

DEFAULT_MODEL = "efficientnet_lite0"
FORMATS = ("pt2", "aoti", "onnx")
DEVICE_HELP = "cpu, cuda, cuda:1, mps, ... (default: %(default)s)"
COLORMAPS = ("inferno", "magma", "viridis", "jet", "gray")
OPERANDS = {
    "explain": "PHOTO... ",
    "compare": "QUERY SUPPORT ",
    "retrieve": "QUERY GALLERY ",
    "few-shot": "--support DIR --query PHOTO... ",
    "info": "FILE ",
}

TOP_EXAMPLES = """\
examples:
  naflow-fx explain cat.jpg                      maps of every layer, bundled model, ./naflow_out
  naflow-fx explain *.jpg --target espresso      why espresso? for many photos
  naflow-fx compare cat.jpg other-cat.jpg        how much are they alike, and where?
  naflow-fx retrieve cat.jpg photos/             the photos of a folder most alike, and why
  naflow-fx inspect --model resnet50             which layers there are, and how each is inverted
  naflow-fx models                               names for --model
  naflow-fx export --format onnx --out x.onnx    network and explainer as one file, see `info`
"""
EXPLAIN_EXAMPLES = """\
what is written, for each photo:
  DIR/<photo>/grid.png     the photo, then the map of every layer over it, from input to output
  DIR/<photo>/maps/*.png   the same maps, one picture each
  DIR/<photo>/flow.json    names, shapes, score, top 5, residuals, norm ratios, options, versions

examples:
  naflow-fx explain cat.jpg
  naflow-fx explain cat.jpg dog.jpg --target "tabby" --out pictures
  naflow-fx explain cat.jpg --layers 'blocks.1?.*' --method layercam
  naflow-fx explain cat.jpg --model resnet50 --weights IMAGENET1K_V2 --device cuda
  naflow-fx explain cat.jpg --model resnet18 --weights my_training.pt
  naflow-fx explain cat.jpg --reduction channelwise --weight importance --damping 0.01 --steps 20
"""
INSPECT_EXAMPLES = """\
examples:
  naflow-fx inspect
  naflow-fx inspect --model resnet18 --layers 'layer4.*'
"""
EXPORT_EXAMPLES = """\
formats, all with the signature (image [N, 3, H, W], target int64 [N], -1: the predicted class):
  pt2    torch.export: torch.export.load(FILE).module()(image, target), any device
  aoti   compiled by AOTInductor for --device, for Python and C++; can take minutes
  onnx   for onnxruntime and others; needs pip install 'naflow-fx[onnx]'

examples:
  naflow-fx export --format pt2 --out explainer.pt2
  naflow-fx export --format onnx --model resnet18 --layers 'layer4.*' --out explainer.onnx
  naflow-fx info explainer.onnx
  naflow-fx explain cat.jpg --artefact explainer.onnx
"""
INFO_EXAMPLES = """\
examples:
  naflow-fx info explainer.pt2
  naflow-fx info explainer.onnx --json
"""

MODELS_NOTE = """\
"256 > 224" is: the short side resized to 256 pixels, the central 224 x 224 cut out. Weights that
are downloaded stay in torch's cache; any model also takes a checkpoint file of your own.
"""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, as all errors of this program."""

    def error(self, message: str) -> NoReturn:
        """Print the message and where help is, and leave with exit code 2."""
        self.exit(2, f"naflow-fx: error: {message} (see `{self.prog} --help`)\n")


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; `args.command(args)` runs what was chosen."""
    parser = _parser(
        Parser,
        prog="naflow-fx",
        epilog=TOP_EXAMPLES,
        description=("Attention maps for every layer of a trained convolutional network."),
    )
    parser.add_argument("--version", action="version", version=f"naflow-fx {_version()}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_explain(
        _command(
            commands,
            "explain",
            "explain photos: pictures and numbers of every layer",
            EXPLAIN_EXAMPLES,
        )
    )
    from naflow_fx.cli.parser_pairs import add_pair_commands

    add_pair_commands(commands)
    add_inspect(
        _command(
            commands, "inspect", "print the layers and how each is explained", INSPECT_EXAMPLES
        )
    )
    text = "write a network with its explainer as one file: PyTorch, compiled, or ONNX"
    add_export(_command(commands, "export", text, EXPORT_EXAMPLES))
    text = "print what an exported file says of itself"
    add_info(_command(commands, "info", text, INFO_EXAMPLES))
    text = "list the models, their public weights and input"
    models = _command(commands, "models", text, MODELS_NOTE)
    models.set_defaults(command=run_models)
    return parser


def _parser(
    make: Callable[..., argparse.ArgumentParser], *args: str, **texts: str
) -> argparse.ArgumentParser:
    """A parser whose epilog keeps its lines, and that takes no abbreviations of options."""
    form = argparse.RawDescriptionHelpFormatter
    return make(*args, formatter_class=form, allow_abbrev=False, **texts)


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str, epilog: str
) -> argparse.ArgumentParser:
    """A parser for the command `name`."""
    description = f"{text[0].upper()}{text[1:]}."
    usage = f"naflow-fx {name} {OPERANDS.get(name, '')}[options]"
    return _parser(
        commands.add_parser, name, help=text, usage=usage, description=description, epilog=epilog
    )


def _version() -> str:
    try:
        return version("naflow-fx")
    except PackageNotFoundError:
        return "(not installed)"


def add_model_options(parser: argparse.ArgumentParser, artefact: bool = False) -> None:
    """Options that choose the network, or an artefact of one, and its layers."""
    group = parser.add_argument_group("the network")
    choice = group.add_mutually_exclusive_group()
    if artefact:
        text = "a file that `naflow-fx export` wrote: the network with its explainer"
        choice.add_argument("--artefact", metavar="FILE", help=text)
    choice.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="NAME",
        help="one of `naflow-fx models` (default: %(default)s, bundled)",
    )
    group.add_argument(
        "--weights",
        metavar="FILE|NAME",
        help="a checkpoint file, or public weights by name (default: the best public ones)",
    )
    group.add_argument(
        "--layers",
        nargs="+",
        metavar="GLOB",
        help="only these layers: names or patterns, quoted, such as 'layer4.*' (default: all)",
    )


def add_method_options(parser: argparse.ArgumentParser) -> None:
    """Options that choose how maps are computed; what is not given, the preset decides."""
    group = parser.add_argument_group("how maps are computed (not given: as the preset says)")
    group.add_argument("--method", choices=get_args(options.Method), help="(default: naflow)")
    group.add_argument("--preset", choices=tuple(options.PRESETS), help="a named set of options")
    group.add_argument(
        "--reduction",
        choices=get_args(options.Reduction),
        help="sum: max(0, .) of the sum over channels; channelwise: the sum of max(0, .)",
    )
    group.add_argument(
        "--residual",
        choices=get_args(options.Residual),
        help="residual blocks: one joint solve, or subtract the other branch",
    )
    group.add_argument(
        "--weight",
        choices=get_args(options.Weight),
        help="weigh the least squares by each neuron's importance",
    )
    group.add_argument(
        "--damping",
        type=float,
        metavar="X",
        help="of the least squares, relative to the largest singular value squared; 0 or more",
    )
    group.add_argument("--steps", type=int, metavar="N", help="of the solver, at most")
    group.add_argument(
        "--precision",
        choices=get_args(options.Precision),
        help="what dense layers multiply in while the inverse is solved (default: auto)",
    )
    group.add_argument("--rows", choices=get_args(options.Rows), help="equations that are solved")
    group.add_argument(
        "--prior", choices=get_args(options.Prior), help="what damping pulls towards"
    )


def add_explain(parser: argparse.ArgumentParser) -> None:
    """The options of `naflow-fx explain`."""
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
    parser.set_defaults(command=run_explain)


def add_picture_options(parser: argparse.ArgumentParser) -> None:
    """Options that choose where pictures go, how they look and what computes them."""
    parser.add_argument(
        "--out", default="naflow_out", metavar="DIR", help="where to write (default: %(default)s)"
    )
    parser.add_argument(
        "--device",
        default="cpu",
        metavar="D",
        help=DEVICE_HELP,
    )
    parser.add_argument(
        "--colormap",
        choices=COLORMAPS,
        default=COLORMAPS[0],
        help="(default: %(default)s, safe for the colour-blind)",
    )
    parser.add_argument(
        "--alpha",
        type=_share,
        default=0.5,
        metavar="A",
        help="share of the colours over the photo, 0 to 1 (default: %(default)s)",
    )


def add_inspect(parser: argparse.ArgumentParser) -> None:
    """The options of `naflow-fx inspect`."""
    add_model_options(parser)
    add_method_options(parser)
    parser.set_defaults(command=run_inspect)


def add_export(parser: argparse.ArgumentParser) -> None:
    """The options of `naflow-fx export`."""
    parser.add_argument("--format", required=True, choices=FORMATS, help="of the file, see below")
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="ends in .pt2 (pt2, aoti) or .onnx"
    )
    parser.add_argument("--device", default="cpu", metavar="D", help=DEVICE_HELP)
    add_model_options(parser)
    add_method_options(parser)
    parser.set_defaults(command=run_export)


def add_info(parser: argparse.ArgumentParser) -> None:
    """The options of `naflow-fx info`."""
    parser.add_argument("file", metavar="FILE", help="an artefact, .pt2 or .onnx")
    parser.add_argument("--json", action="store_true", help="everything, as JSON")
    parser.set_defaults(command=run_info)


def _share(text: str) -> float:
    """A number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1, got {text}")
    return value


def run_explain(args: argparse.Namespace) -> None:
    """`naflow-fx explain`; torch is imported only now."""
    from naflow_fx.cli.explain import explain

    explain(args)


def run_inspect(args: argparse.Namespace) -> None:
    """`naflow-fx inspect`."""
    from naflow_fx.cli.listing import inspect

    inspect(args)


def run_export(args: argparse.Namespace) -> None:
    """`naflow-fx export`."""
    from naflow_fx.cli.export import export

    export(args)


def run_info(args: argparse.Namespace) -> None:
    """`naflow-fx info`."""
    from naflow_fx.cli.info import info

    info(args)


def run_models(args: argparse.Namespace) -> None:
    """`naflow-fx models`."""
    from naflow_fx.cli.listing import models

    models()
