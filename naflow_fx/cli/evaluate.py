"""Measure how good maps are, method by method and layer by layer.

data:
  check, choose   photos that installed packages ship, with boxes drawn by hand: those to report
                  on, and those to choose methods by; needs pip install 'naflow-fx[evaluate]'
  synthetic       pictures with known evidence, and a small CNN trained on them, in a minute
  voc             --root DIR of VOCdevkit, --class-map FILE: {"dog": 207, ...}, the network's
  coco            --root DIR of photos, --annotations instances_val2017.json, --class-map FILE
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

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from naflow_fx.cli.options import add_device, add_model_options, add_out
from naflow_fx.cli.parser import count, option
from naflow_fx.cli.setup import given, open_subject
from naflow_fx.cli.tables import news_aside, plain_table, show
from naflow_fx.errors import EvaluationError
from naflow_fx.options import open_device
from naflow_fx.selection import choose, evenly
from naflow_fx.view.progress import progress

if TYPE_CHECKING:
    from torch import nn

    from naflow_fx.evaluation.data import EvaluationSet, Explain

PACKAGED = ("check", "choose", "synthetic")
ADAPTERS = {"voc": ("root", "class_map"), "coco": ("root", "annotations", "class_map"),
            "imagenet": ("root", "annotations"), "cub200": ("root",)}  # fmt: skip
METHODS = ("naflow", "naflow-channelwise", "focused", "layercam", "hirescam", "gradcam")
METRICS = ("energy", "pointing", "i_d", "residual")
LAYERS = 7  # that are measured, where nobody says which
PICTURES = 24


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_out(parser)
    add_device(parser)
    group = parser.add_argument_group("the data")
    option(group, "--data", "", (*PACKAGED, *ADAPTERS), PACKAGED[0])
    option(group, "--root DIR", "where the data set lies")
    option(group, "--annotations PATH", "its boxes: a file or a folder")
    text = "JSON: the data set's classes -> the network's numbers"
    option(group, "--class-map FILE", text)
    option(group, "--limit N", "images, at most", count)
    group = parser.add_argument_group("what is measured")
    text = f"naflow-all, peers, ...: an unknown one lists them (default: {' '.join(METHODS)})"
    option(group, "--methods NAME...", text)
    text = f"energy, pointing, insertion, road, fidelity, ... (default: {' '.join(METRICS)})"
    option(group, "--metrics NAME...", text, default=METRICS)
    text = "also: how far maps change with random weights, for another class"
    option(group, "--sanity", text)
    add_model_options(parser, artefact=True, layers="seven, evenly over the depth")


def evaluate(args: argparse.Namespace) -> None:
    """Run the command; NaflowError or OSError before anything is measured if an input is wrong."""
    from naflow_fx.evaluation import report, sanity
    from naflow_fx.evaluation.measure import depth_of
    from naflow_fx.evaluation.measure import evaluate as measure
    from naflow_fx.evaluation.synthetic import trained
    from naflow_fx.files import write

    check_names(args)
    device = open_device(args.device)
    with news_aside():
        data, model = open_data(args)
    model = model.to(device)
    tensors: Any = {name: found.to(device) for name in ("images", "target", "evidence")
                    if (found := getattr(data, name)) is not None}  # fmt: skip
    data = replace(data, **tensors)
    every, explain = explaining(args, data, model)
    explainers = {name: explain(name, model) for name in args.methods}
    place = Path(args.out)
    place.mkdir(parents=True, exist_ok=True)
    with telling(args.methods) as told:
        result = measure(
            explainers, data, list(args.metrics), model=model, progress=told, depth=depth_of(every)
        )
    result.save(place / "evaluation.json")
    others: Any = {}
    if args.sanity and args.data == "synthetic":
        others = {"random labels": trained(shuffled=True)}
    checks = sanity.rows(args.methods, explain, model, data, others) if args.sanity else []
    write(place / "evaluation.md", report.page(result, checks))
    written = [str(place / "evaluation.json"), "evaluation.md"]
    with suppress(EvaluationError):  # without matplotlib
        written.append(result.plot(place / "curves.png").name)
    title = f"{data.name}: {len(data)} images, mean over layers and images [95 %]"
    show(table_of(result.rows()), title=title)
    if checks:
        show(table_of(checks), title=sanity.TITLE)
    show(f"written: {', '.join(written)}")


def table_of(rows: Sequence[Sequence[str]]) -> Table:
    """A table, its first row the head."""
    head, *body = rows
    return plain_table(head, body, right=head[1:])


def explaining(
    args: argparse.Namespace, data: EvaluationSet, model: nn.Module
) -> tuple[Sequence[str], Callable[[str, nn.Module], Explain]]:
    """All layers of the network, and (method, network) -> its explainer at those that are wanted.

    Raises:
        EvaluationError: other methods than its own, or random weights, are asked of an artefact.
    """
    from naflow_fx.compiler import compile
    from naflow_fx.evaluation.methods import make
    from naflow_fx.subjects import ExportedNetwork

    if isinstance(model, ExportedNetwork):
        artefact = model.artefact
        method = str(artefact.metadata.options["method"])
        if args.sanity or (args.methods or [method]) != [method]:
            raise EvaluationError(
                f"an artefact has its weights and one method, {method}; for "
                "others, and for --sanity, evaluate the network it was made of"
            )
        args.methods = [method]
        return artefact.layers, lambda *_: artefact
    args.methods = args.methods or METHODS
    example = data.images[:1]
    every = sites = compile(model, example, method="hirescam").layers
    if args.layers:
        sites = choose(every, given(args, ["layers"]).get("layers"), EvaluationError)
    elif len(every) > LAYERS:
        sites = evenly(every, LAYERS + 1)[1:]  # the last one among them
    return every, lambda method, network: make(method, network, example, sites, args.metrics)


@contextmanager
def telling(methods: Sequence[str]) -> Iterator[Callable[[str], None]]:
    """A bar that counts methods; what is told to it begins with one's name."""
    with progress() as bar:
        task = bar.add_task("", total=len(methods))

        def told(text: str) -> None:
            bar.update(task, description=text, completed=methods.index(text.partition(":")[0]))

        yield told


def check_names(args: argparse.Namespace) -> None:
    """EvaluationError: an unknown method or metric, or an option that the data needs."""
    from naflow_fx.evaluation import metrics
    from naflow_fx.evaluation.methods import NAMES

    for kind, asked, there in (("method", args.methods or (), NAMES),
                               ("metric", args.metrics, metrics.METRICS)):  # fmt: skip
        unknown = [name for name in asked if name not in there]
        if unknown:
            raise EvaluationError(f"no {kind} {', '.join(unknown)}; there are {', '.join(there)}")
    lacking = [f"--{name.replace('_', '-')}" for name in ADAPTERS.get(args.data, ())
               if getattr(args, name) is None]  # fmt: skip
    if lacking:
        raise EvaluationError(f"--data {args.data} needs {' and '.join(lacking)}")


def open_data(args: argparse.Namespace) -> tuple[EvaluationSet, nn.Module]:
    """The images and the network.

    EvaluationError: boxes can't take the photo's way through a function.
    """
    from naflow_fx.evaluation import adapters
    from naflow_fx.evaluation.photos import photos
    from naflow_fx.evaluation.synthetic import synthetic, trained
    from naflow_fx.models.preprocess import Preprocessing

    if args.data == "synthetic":
        return synthetic(args.limit or PICTURES, seed=2), trained()
    subject = open_subject(args)
    prepare = subject.preprocessing
    if not isinstance(prepare, Preprocessing):
        raise EvaluationError("boxes have to be cut as photos are, which a function doesn't tell; "
                              "give --size, --mean and --std")  # fmt: skip
    if args.data in PACKAGED:
        return photos(args.data, prepare)[: args.limit], subject.build(args.device)
    chosen: dict[str, Any] = given(args, ["limit"])
    if args.class_map and args.data != "cub200":
        chosen["classes"] = adapters.class_numbers(args.class_map)
    places = [getattr(args, name) for name in ADAPTERS[args.data] if name != "class_map"]
    return getattr(adapters, args.data)(*places, prepare, **chosen), subject.build(args.device)
