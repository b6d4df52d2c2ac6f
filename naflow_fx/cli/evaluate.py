"""`naflow-fx evaluate`: maps of several methods, measured on images with known evidence."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from naflow_fx import selection
from naflow_fx.cli.base import Commands, command, count, news_aside, option
from naflow_fx.cli.options import add_device, add_model_options, add_out
from naflow_fx.cli.setup import open_device, open_subject
from naflow_fx.cli.tables import plain_table, show
from naflow_fx.errors import EvaluationError
from naflow_fx.view.progress import progress

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from naflow_fx.evaluation.data import EvaluationSet, Explain
    from naflow_fx.evaluation.result import Evaluation
    from naflow_fx.models.preprocess import Preprocessing
    from naflow_fx.subjects import ExportedNetwork

TEXT = "measure how good maps are, method by method and layer by layer"
DATA = ("check", "choose", "synthetic", "voc", "coco", "imagenet", "cub200")
METHODS = ("naflow", "naflow-channelwise", "focused", "layercam", "hirescam", "gradcam")
METRICS = ("energy", "pointing", "i_d", "residual")
EXAMPLES = """\
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
LAYERS = 7  # that are measured, where nobody says which
PICTURES = 24
SANITY = "Rank correlation of maps with those of random weights, another class, random labels"


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command(commands, evaluate, TEXT, EXAMPLES)
    add_out(parser)
    add_device(parser)
    group = parser.add_argument_group("the data")
    option(group, "--data", "", DATA, DATA[0])
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
    from naflow_fx.files import write

    check_names(args)
    device = open_device(args.device)
    with news_aside():
        data, model = open_data(args)
    model, data = model.to(device), moved(data, device)
    place = Path(args.out)
    place.mkdir(parents=True, exist_ok=True)
    result = measured(args, data, model)
    result.save(place / "evaluation.json")
    checks = sanity_rows(args, data, model) if args.sanity else []
    write(place / "evaluation.md", page(result, checks))
    written = ["evaluation.md", *curves(result, place)]
    title = f"{data.name}: {len(data)} images, mean over layers and images [95 %]"
    show(table_of(result.rows()), title=title)
    if checks:
        show(table_of(checks), title=SANITY)
    show(f"written: {place / 'evaluation.json'}, {', '.join(written)}")


def table_of(rows: Sequence[Sequence[str]]) -> Table:
    """A table, its first row the head."""
    head, *body = rows
    table = plain_table(*head, right=head[1:])
    for row in body:
        table.add_row(*row)
    return table


def measured(args: argparse.Namespace, data: EvaluationSet, model: nn.Module) -> Evaluation:
    """Every method's figures, with a bar while they are made."""
    from naflow_fx.compiler import compile
    from naflow_fx.evaluation.measure import depth_of
    from naflow_fx.evaluation.measure import evaluate as measure
    from naflow_fx.subjects import ExportedNetwork

    if isinstance(model, ExportedNetwork):
        every, explainers = model.artefact.layers, exported(args, model)
    else:
        every = compile(model, data.images[:1], method="hirescam").layers
        explain = explainer_maker(args, data.images[:1], model)
        explainers = {name: explain(name, model) for name in args.methods or METHODS}
    with progress() as bar:
        task = bar.add_task("", total=len(explainers))
        done: list[str] = []

        def told(text: str) -> None:
            method = text.split(":")[0]
            if method not in done:
                done.append(method)
            bar.update(task, description=text, completed=len(done) - 1)

        return measure(explainers, data, list(args.metrics), model=model, progress=told,
                       depth={"input": 0.0, **depth_of(every)})  # fmt: skip


def exported(args: argparse.Namespace, model: ExportedNetwork) -> dict[str, Explain]:
    """The one explainer of an artefact, under the name of its method.

    EvaluationError: other methods, or random weights, are asked of it.
    """
    method = str(model.artefact.metadata.options["method"])
    if args.sanity or [*(args.methods or [method])] != [method]:
        raise EvaluationError(f"an artefact has its weights and one method, {method}; for others, "
                              "and for --sanity, evaluate the network it was made of")  # fmt: skip
    return {method: model.artefact}


def explainer_maker(
    args: argparse.Namespace, example: Tensor, model: nn.Module
) -> Callable[[str, nn.Module], Explain]:
    """(method, network) -> its explainer at the layers that are wanted."""
    from naflow_fx.compiler import compile
    from naflow_fx.evaluation.methods import OF_THE_INPUT, make

    layers = args.layers or evenly(compile(model, example, method="hirescam").layers)
    sites = compile(model, example, method="hirescam", layers=layers).layers
    return lambda name, network: make(
        name, network, example, None if name in OF_THE_INPUT else sites, args.metrics
    )


def sanity_rows(args: argparse.Namespace, data: EvaluationSet, model: nn.Module) -> list[list[str]]:
    """How alike each method's maps stay with random weights, for another class, as a table."""
    import torch

    from naflow_fx.evaluation import sanity
    from naflow_fx.evaluation.measure import class_probability, targets
    from naflow_fx.evaluation.synthetic import trained

    explain = explainer_maker(args, data.images[:1], model)
    data = replace(data, target=targets(data, class_probability(model)))
    with torch.no_grad():
        classes = model(data.images[:1]).shape[1]
    rows = [["method", *(f"{share:.0%} of weights" for share in sanity.STAGES), "another class"]]
    rows[0] += ["random labels"] if args.data == "synthetic" else []
    for name in args.methods or METHODS:
        of_network = partial(explain, name)
        found = [sanity.cascading(of_network, model, data),
                 sanity.by_class(of_network(model), data, classes)]  # fmt: skip
        if args.data == "synthetic":
            other = {"random labels": trained(shuffled=True)}
            found.append(sanity.compared(of_network, model, other, data))
        rows.append([name, *(str(e) for check in found for e in check.similarities())])
    return rows


def evenly(layers: list[str]) -> list[str]:
    """Seven layers, evenly over the depth, the last one among them; all where there are fewer."""
    return layers if len(layers) <= LAYERS else selection.evenly(layers, LAYERS + 1)[1:]


def check_names(args: argparse.Namespace) -> None:
    """EvaluationError: an unknown method or metric, or an option that the data needs."""
    from naflow_fx.evaluation import metrics
    from naflow_fx.evaluation.methods import NAMES

    for kind, given, there in (("method", args.methods or (), NAMES),
                               ("metric", args.metrics, metrics.METRICS)):  # fmt: skip
        unknown = [name for name in given if name not in there]
        if unknown:
            raise EvaluationError(f"no {kind} {', '.join(unknown)}; there are {', '.join(there)}")
    needed = {"voc": ("root", "class_map"), "coco": ("root", "annotations", "class_map"),
              "imagenet": ("root", "annotations"), "cub200": ("root",)}  # fmt: skip
    lacking = [f"--{name.replace('_', '-')}" for name in needed.get(args.data, ())
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
    return (data[: args.limit] if args.limit else data), subject.build().eval()


def read(args: argparse.Namespace, preprocessing: Preprocessing) -> EvaluationSet:
    """The images of a data set, as the network takes them."""
    from naflow_fx.evaluation import adapters
    from naflow_fx.evaluation.photos import photos

    if args.data in ("check", "choose"):
        return photos(args.data, preprocessing)
    limit = {"limit": args.limit} if args.limit else {}
    classes = class_numbers(Path(args.class_map)) if args.class_map else None
    if args.data == "cub200":
        return adapters.cub200(args.root, preprocessing, **limit)
    if args.data == "imagenet":
        return adapters.imagenet(args.root, args.annotations, preprocessing, classes=classes,
                                 **limit)  # fmt: skip
    assert classes is not None
    if args.data == "coco":
        return adapters.coco(args.root, args.annotations, preprocessing, classes, **limit)
    return adapters.voc(args.root, preprocessing, classes, **limit)


def class_numbers(path: Path) -> Mapping[str, int]:
    """The JSON file of --class-map."""
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise EvaluationError(f"{path}: not JSON ({error})") from error
    if not isinstance(found, dict) or not all(isinstance(v, int) for v in found.values()):
        raise EvaluationError(f'{path}: wanted {{"name of a class": number, ...}}')
    return found


def moved(data: EvaluationSet, device: torch.device) -> EvaluationSet:
    """The same images on the device."""
    evidence: Any = None if data.evidence is None else data.evidence.to(device)
    return replace(data, images=data.images.to(device), target=data.target.to(device),
                   evidence=evidence)  # fmt: skip


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


def curves(result: Evaluation, place: Path) -> list[str]:
    """Writes the curves, where matplotlib is there; gives the file's name."""
    try:
        return [result.plot(place / "curves.png").name]
    except EvaluationError:
        return []
