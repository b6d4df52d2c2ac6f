"""`naflow-fx few-shot`: classes from a few photos of each, and why."""

from __future__ import annotations

import argparse
import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from naflow_fx.cli.base import Commands, command, count, option
from naflow_fx.cli.options import add_pair_options
from naflow_fx.cli.setup import places, question, shown
from naflow_fx.cli.tables import plain_table, show
from naflow_fx.cli.variants import each
from naflow_fx.errors import InputError, PhotoError, TargetError

if TYPE_CHECKING:
    from torch import Tensor

    from naflow_fx.cli.encoder import Encoder

SHOTS, TEMPERATURE = 5, 10.0
TEXT = "classify photos by a few examples of each class, and why"
EXAMPLES = """\
The support folder has a folder for each class, with its pictures. A photo goes to the class
whose mean embedding is most alike; the logits are temperature x similarity.

what is written, for each query, as `compare` does, a row for the query and for each shot:
  DIR/<query>/grid.png, maps/*.png, flow.json

examples:
  naflow-fx few-shot --support animals/ --query photo.jpg
  naflow-fx few-shot --support animals/ --query *.jpg --shots 1 --match cat
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command(commands, few_shot, TEXT, EXAMPLES, "--support DIR --query PHOTO...")
    option(parser, "--support DIR", "a folder with a folder for each class", required=True)
    option(parser, "--query PHOTO...", "picture files to classify", required=True)
    text = "pictures of each class, its first by name (default: at most %(default)s)"
    option(parser, "--shots N", text, count, SHOTS)
    option(parser, "--temperature T", "of the logits", float, TEMPERATURE)
    option(parser, "--match CLASS", "the class to compare with (default: the predicted one)")
    add_pair_options(parser)


@dataclass(frozen=True)
class Class:
    """One class: its name, the shots that stand for it, their mean embedding [D], all pictures."""

    name: str
    shots: list[Path]
    mean: Tensor
    pictures: int


def few_shot(args: argparse.Namespace) -> None:
    """Run the command; NaflowError or OSError before anything is written if an input is wrong."""
    each(args, _few_shot)


def _few_shot(args: argparse.Namespace) -> None:
    """One method, into one folder."""
    import torch

    from naflow_fx.cli.encoder import open_encoder
    from naflow_fx.models.preprocess import open_photo
    from naflow_fx.pairs.embedding import compare, embed

    queries, folder = [Path(photo) for photo in args.query], Path(args.support)
    photos = [open_photo(query) for query in queries]
    found = _folders(folder, Path(args.results))
    match = None if args.match is None else _index(args.match, list(found))
    folders = places(args, [query.stem for query in queries], queries)
    encoder = open_encoder(args, queries[0], folders)
    classes = _classes(encoder, found, folder, args.match)
    means = torch.stack([one.mean for one in classes])
    images = encoder.inputs(photos)
    logits = compare(embed(encoder.embedder, images), means, encoder.similarity) * args.temperature
    names = [one.name for one in classes]
    match = None if match is None else names.index(list(found)[match])
    for query, place, row in zip(queries, folders, logits.cpu(), strict=True):
        _explain(encoder, query, place, row, classes, int(row.argmax()) if match is None else match)


def _folders(folder: Path, out: Path) -> dict[str, list[Path]]:
    """Class name -> its pictures, of every folder in a folder that has any; not of `out`."""
    from naflow_fx.cli.encoder import check_folder, pictures_in

    check_folder(folder)
    inside = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    inside = [path for path in inside if path.resolve() != out.resolve()]
    found = {shown(path): pictures for path in inside if (pictures := pictures_in(path, out))}
    if len(found) < 2:
        raise PhotoError(f"{folder}: {len(found)} folders with pictures in it; wanted one for each "
                         "class, two or more")  # fmt: skip
    return found


def _index(name: str, names: list[str]) -> int:
    """The class of a name; TargetError, with the nearest names, if there is none."""
    if name in names:
        return names.index(name)
    near = difflib.get_close_matches(name, names, 5) or names[:5]
    raise TargetError(f"--match {name}: no such folder; there are {', '.join(near)}")


def _classes(
    encoder: Encoder, found: dict[str, list[Path]], folder: Path, match: str | None
) -> list[Class]:
    """The classes with a readable shot; PhotoError if they are not enough."""
    from naflow_fx.cli.encoder import report

    classes: list[Class] = []
    for name, pictures in found.items():
        shots, rows, wrong = _shots(encoder, pictures, name)
        report(*(f"skipped: {message}" for message in wrong))
        if shots:
            classes.append(Class(name, shots, rows.mean(0), len(pictures)))
        elif name == match:
            raise PhotoError(f"{folder / name}: none of its pictures can be used")
    if len(classes) < 2:
        raise PhotoError(f"{folder}: {len(classes)} classes with usable pictures; wanted 2 or more")
    return classes


def _shots(
    encoder: Encoder, pictures: list[Path], name: str
) -> tuple[list[Path], Tensor, list[str]]:
    """The first pictures that can be used, as many as shots are wanted, and their embeddings."""
    import torch
    from torch import Tensor

    wanted, wrong = encoder.args.shots, list[str]()
    shots, rows, left = list[Path](), list[Tensor](), list(pictures)
    while left and len(shots) < wanted:
        part, left = left[: wanted - len(shots)], left[wanted - len(shots) :]
        good, embeddings, bad = encoder.embed(part, f"encoding {name}")
        shots, wrong = shots + good, wrong + bad
        rows += [embeddings] if good else []
    return shots, torch.cat(rows) if rows else torch.empty(0), wrong


def _explain(
    encoder: Encoder, query: Path, place: Path, logits: Tensor, classes: list[Class], match: int
) -> None:
    """Explain one query with the shots of a class, save and print."""
    from naflow_fx.cli.encoder import report

    best, chosen = classes[int(logits.argmax())].name, classes[match]
    rows = ["query", *(f"{chosen.name} · {shown(shot)}" for shot in chosen.shots)]
    facts = {
        "question": question(encoder.args, query),
        "prediction": best,
        "match": chosen.name,
        "logits": {one.name: float(x) for one, x in zip(classes, logits, strict=True)},
        "temperature": encoder.args.temperature,
    }
    title = f"{shown(query)}: {best}" + (f", against {chosen.name}" if chosen.name != best else "")
    _print(shown(query), logits, classes, encoder.args.temperature)
    try:
        encoder.explain(place, query, chosen.shots, rows, title, facts)
    except InputError as error:  # a similarity of exactly 0
        report(f"{shown(query)} with {chosen.name} is not explained: {error}")
        return
    show(f"written: {place / 'grid.png'}, compared with {chosen.name}")


def _print(query: str, logits: Tensor, classes: list[Class], temperature: float) -> None:
    """Prediction and a table of the classes, the likeliest first."""
    order = logits.argsort(descending=True).tolist()
    shares = logits.softmax(0)
    first = f"{classes[order[0]].name} {float(shares[order[0]]):.1%}"
    heads = ("shots", "similarity", "logit", "probability")
    table = plain_table("class", *heads, right=heads)
    for i in order:
        one, logit = classes[i], float(logits[i])
        shots = f"{len(one.shots)} of {one.pictures}"
        similarity = f"{logit / temperature:.4f}" if temperature else "-"
        table.add_row(Text(one.name), shots, similarity, f"{logit:.3f}", f"{shares[i]:.1%}")
    show(table, title=f"{query}: {first}")
