"""The options of the commands that compare images. No heavy import in here."""

from __future__ import annotations

import argparse

from naflow_fx.cli import parser as base

SHOTS, TEMPERATURE = 5, 10.0
METRICS, POOLS = ("cosine", "dot", "euclidean"), ("flatten", "mean")

COMPARE_EXAMPLES = """\
what is written:
  DIR/<query>-<support>/grid.png     two rows of maps, one an image, from input to output
  DIR/<query>-<support>/maps/*.png   the same maps, the query at the left
  DIR/<query>-<support>/flow.json    similarity, names, shapes, residuals, options, versions

examples:
  naflow-fx compare cat.jpg other-cat.jpg
  naflow-fx compare cat.jpg dog.jpg --metric euclidean --layers 'head*' 'blocks.1?.add'
  naflow-fx compare a.jpg b.jpg --model resnet50_ms --weights my_checkpoint.pth
"""
RETRIEVE_EXAMPLES = """\
GALLERY is searched with its subfolders for pictures (.png, .jpg, .webp, .tif, .bmp, .gif, ...).
Those that can't be read are named and left out; so are the query itself and what is in --out.

what is written, for each hit, best first, as `compare` does:
  DIR/<query>/1/grid.png, maps/*.png, flow.json; DIR/<query>/2/...

examples:
  naflow-fx retrieve cat.jpg photos/
  naflow-fx retrieve cat.jpg photos/ --top-k 3 --model resnet50 --weights IMAGENET1K_V2
"""
FEW_SHOT_EXAMPLES = """\
The support folder has a folder for each class, with its pictures. A photo goes to the class
whose mean embedding is most alike; the logits are temperature x similarity.

what is written, for each query, as `compare` does, a row for the query and for each shot:
  DIR/<query>/grid.png, maps/*.png, flow.json

examples:
  naflow-fx few-shot --support animals/ --query photo.jpg
  naflow-fx few-shot --support animals/ --query *.jpg --shots 1 --match cat
"""


def add_pair_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`compare`, `retrieve` and `few-shot`."""
    text = "why are two photos alike? maps of both"
    add_compare(base._command(commands, "compare", text, COMPARE_EXAMPLES))
    text = "find the photos of a folder that are most alike, and why"
    add_retrieve(base._command(commands, "retrieve", text, RETRIEVE_EXAMPLES))
    text = "classify photos by a few examples of each class, and why"
    add_few_shot(base._command(commands, "few-shot", text, FEW_SHOT_EXAMPLES))


def add_compare(parser: argparse.ArgumentParser) -> None:
    """The options of `naflow-fx compare`."""
    parser.add_argument("query", metavar="QUERY", help="a picture file")
    parser.add_argument("support", metavar="SUPPORT", help="what it is compared with")
    _add_common(parser)
    parser.set_defaults(command=run_compare)


def add_retrieve(parser: argparse.ArgumentParser) -> None:
    """The options of `naflow-fx retrieve`."""
    parser.add_argument("query", metavar="QUERY", help="a picture file")
    parser.add_argument("gallery", metavar="GALLERY", help="a folder of pictures")
    parser.add_argument(
        "--top-k", type=_count, default=5, metavar="K", help="hits (default: %(default)s)"
    )
    _add_common(parser)
    parser.set_defaults(command=run_retrieve)


def add_few_shot(parser: argparse.ArgumentParser) -> None:
    """The options of `naflow-fx few-shot`."""
    parser.add_argument(
        "--support", required=True, metavar="DIR", help="a folder with a folder for each class"
    )
    parser.add_argument(
        "--query", required=True, nargs="+", metavar="PHOTO", help="picture files to classify"
    )
    parser.add_argument(
        "--shots",
        type=_count,
        default=SHOTS,
        metavar="N",
        help="pictures of each class, its first by name (default: at most %(default)s)",
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=TEMPERATURE,
        metavar="T",
        help="of the logits (default: %(default)s)",
    )
    parser.add_argument(
        "--match", metavar="CLASS", help="the class to compare with (default: the predicted one)"
    )
    _add_common(parser)
    parser.set_defaults(command=run_few_shot)


def _add_common(parser: argparse.ArgumentParser) -> None:
    """Options of every command that compares: pictures, similarity, network, method."""
    base.add_picture_options(parser)
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
    base.add_model_options(parser)
    base.add_method_options(parser)


def _count(text: str) -> int:
    """A number of things, 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {text}")
    return value


def run_compare(args: argparse.Namespace) -> None:
    """`naflow-fx compare`; torch is imported only now."""
    from naflow_fx.cli.compare import compare

    compare(args)


def run_retrieve(args: argparse.Namespace) -> None:
    """`naflow-fx retrieve`."""
    from naflow_fx.cli.retrieve import retrieve

    retrieve(args)


def run_few_shot(args: argparse.Namespace) -> None:
    """`naflow-fx few-shot`."""
    from naflow_fx.cli.few_shot import few_shot

    few_shot(args)
