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
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rich.table import Table

from naflow_fx.cli.options import add_device, add_model_options, add_out
from naflow_fx.cli.parser import count, option
from naflow_fx.cli.setup import given, open_device, open_subject
from naflow_fx.cli.tables import news_aside, plain_table, show
from naflow_fx.errors import EvaluationError
from naflow_fx.selection import evenly
from naflow_fx.view.progress import progress

if TYPE_CHECKING:
    from torch import nn

    from naflow_fx.evaluation.data import EvaluationSet, Explain
    from naflow_fx.evaluation.result import Evaluation
    from naflow_fx.models.preprocess import Preprocessing

    Explaining: TypeAlias = Callable[[str, nn.Module], Explain]

PACKAGED = ("check", "choose", "synthetic")
ADAPTERS = {"voc": ("root", "class_map"), "coco": ("root", "annotations", "class_map"),
            "imagenet": ("root", "annotations"), "cub200": ("root",)}  # fmt: skip
METHODS = ("naflow", "naflow-channelwise", "focused", "layercam", "hirescam", "gradcam")
METRICS = ("energy", "pointing", "i_d", "residual")
LAYERS = 7  # that are measured, where nobody says which
PICTURES = 24
SANITY = "Rank correlation of maps with those of random weights, another class, random labels"


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
    from naflow_fx.evaluation.measure import depth_of
    from naflow_fx.evaluation.measure import evaluate as measure
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
    depth = {"input": 0.0, **depth_of(every)}
    place = Path(args.out)
    place.mkdir(parents=True, exist_ok=True)
    with telling(args.methods) as told:
        result = measure(explainers, data, list(args.metrics), model=model, progress=told,
                         depth=depth)  # fmt: skip
    result.save(place / "evaluation.json")
    checks = sanity_rows(args, data, model, explain) if args.sanity else []
    write(place / "evaluation.md", page(result, checks))
    written = [str(place / "evaluation.json"), "evaluation.md"]
    with suppress(EvaluationError):  # without matplotlib
        written.append(result.plot(place / "curves.png").name)
    title = f"{data.name}: {len(data)} images, mean over layers and images [95 %]"
    show(table_of(result.rows()), title=title)
    if checks:
        show(table_of(checks), title=SANITY)
    show(f"written: {', '.join(written)}")


def table_of(rows: Sequence[Sequence[str]]) -> Table:
    """A table, its first row the head."""
    head, *body = rows
    return plain_table(head, body, right=head[1:])


def explaining(
    args: argparse.Namespace, data: EvaluationSet, model: nn.Module
) -> tuple[Sequence[str], Explaining]:
    """All layers of the network, and (method, network) -> its explainer at those that are wanted.

    Raises:
        EvaluationError: other methods than its own, or random weights, are asked of an artefact.
    """
    from naflow_fx.compiler import compile
    from naflow_fx.evaluation.methods import OF_THE_INPUT, make
    from naflow_fx.subjects import ExportedNetwork

    if isinstance(model, ExportedNetwork):
        artefact = model.artefact
        method = str(artefact.metadata.options["method"])
        if args.sanity or (args.methods or [method]) != [method]:
            raise EvaluationError(
                f"an artefact has its weights and one method, {method}; for others, and for "
                "--sanity, evaluate the network it was made of"
            )
        args.methods = [method]
        return artefact.layers, lambda *_: artefact
    args.methods = args.methods or METHODS
    example = data.images[:1]
    every = sites = compile(model, example, method="hirescam").layers
    if args.layers:
        sites = compile(model, example, method="hirescam", **given(args, ["layers"])).layers
    elif len(every) > LAYERS:
        sites = evenly(every, LAYERS + 1)[1:]  # the last one among them
    return every, lambda method, network: make(
        method, network, example, None if method in OF_THE_INPUT else sites, args.metrics
    )


@contextmanager
def telling(methods: Sequence[str]) -> Iterator[Callable[[str], None]]:
    """A bar that counts methods; what is told to it begins with one's name."""
    with progress() as bar:
        task = bar.add_task("", total=len(methods))

        def told(text: str) -> None:
            bar.update(task, description=text, completed=methods.index(text.partition(":")[0]))

        yield told


def sanity_rows(
    args: argparse.Namespace, data: EvaluationSet, model: nn.Module, explain: Explaining
) -> list[list[str]]:
    """How alike each method's maps stay with random weights, for another class, as a table."""
    import torch

    from naflow_fx.evaluation import sanity
    from naflow_fx.evaluation.measure import class_probability, targets
    from naflow_fx.evaluation.synthetic import trained

    data = replace(data, target=targets(data, class_probability(model)))
    with torch.no_grad():
        classes = model(data.images[:1]).shape[1]
    shuffled = {"random labels": trained(shuffled=True)} if args.data == "synthetic" else {}
    head = ["method", *(f"{share:.0%} of weights" for share in sanity.STAGES), "another class"]
    rows = [[*head, *shuffled]]
    for name in args.methods:
        of_network = partial(explain, name)
        found = [sanity.cascading(of_network, model, data),
                 sanity.by_class(of_network(model), data, classes)]  # fmt: skip
        if shuffled:
            found.append(sanity.compared(of_network, model, shuffled, data))
        rows.append([name, *(str(e) for check in found for e in check.similarities())])
    return rows


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
    from naflow_fx.evaluation.synthetic import synthetic, trained
    from naflow_fx.models.preprocess import Preprocessing

    if args.data == "synthetic":
        return synthetic(args.limit or PICTURES, seed=2), trained()
    subject = open_subject(args)
    prepare = subject.preprocessing
    if not isinstance(prepare, Preprocessing):
        raise EvaluationError("boxes have to be cut as photos are, which a function doesn't tell; "
                              "give --size, --mean and --std")  # fmt: skip
    data = read(args, prepare)
    return (data[: args.limit] if args.limit else data), subject.build(args.device)


def read(args: argparse.Namespace, preprocessing: Preprocessing) -> EvaluationSet:
    """The images of a data set, as the network takes them."""
    from naflow_fx.evaluation import adapters
    from naflow_fx.evaluation.photos import photos

    if args.data in PACKAGED:
        return photos(args.data, preprocessing)
    chosen: dict[str, Any] = given(args, ["limit"])
    if args.class_map and args.data != "cub200":
        chosen["classes"] = class_numbers(Path(args.class_map))
    places = [getattr(args, name) for name in ADAPTERS[args.data] if name != "class_map"]
    found: EvaluationSet = getattr(adapters, args.data)(*places, preprocessing, **chosen)
    return found


def class_numbers(path: Path) -> Mapping[str, int]:
    """The JSON file of --class-map."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise EvaluationError(f"{path}: not JSON ({error})") from error
    if not isinstance(found, dict) or not all(isinstance(v, int) for v in found.values()):
        raise EvaluationError(f'{path}: wanted {{"name of a class": number, ...}}')
    return found


def page(result: Evaluation, checks: Sequence[Sequence[str]] = ()) -> str:
    """The tables as Markdown."""
    from naflow_fx.evaluation import report

    parts = [
        f"# {result.dataset}: {len(result.images)} images\n",
        report.means(result, result.metrics),
    ]
    parts += [f"\n## {metric}, by fifths of the depth\n\n{report.fifths(result, metric)}"
              for metric in result.metrics]  # fmt: skip
    if checks:
        parts.append(f"\n## {SANITY}\n\n{report.markdown(checks)}")
    return "\n".join(parts)
