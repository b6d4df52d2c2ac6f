"""Classify photos by a few examples of each class, and why.

The support folder has a folder for each class, with its pictures. A photo goes to the class
whose mean embedding is most alike; the logits are temperature x similarity.

what is written, for each query, as `compare` does, a row for the query and for each shot:
  DIR/<query>/grid.png, maps/*.png, flow.json

examples:
  naflow-fx few-shot --support animals/ --query photo.jpg
  naflow-fx few-shot --support animals/ --query *.jpg --shots 1 --match cat
"""

from __future__ import annotations

import argparse
import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from naflow_fx.cli.options import add_pair_options
from naflow_fx.cli.parser import count, option
from naflow_fx.cli.setup import places, question, shown
from naflow_fx.cli.tables import plain_table, show, tell
from naflow_fx.cli.variants import each
from naflow_fx.errors import InputError, PhotoError, TargetError

if TYPE_CHECKING:
    from torch import Tensor

    from naflow_fx.cli.encoder import Encoder

SHOTS, TEMPERATURE = 5, 10.0


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    option(parser, "--support DIR", "a folder with a folder for each class", required=True)
    option(parser, "--query PHOTO...", "picture files to classify", required=True)
    text = "pictures of each class, its first by name (default: at most %(default)s)"
    option(parser, "--shots N", text, count, SHOTS)
    option(parser, "--temperature T", "of the logits", float, TEMPERATURE)
    option(parser, "--match CLASS", "the class to compare with (default: the predicted one)")
    add_pair_options(parser)


@each
def few_shot(args: argparse.Namespace) -> None:
    """Run the command; NaflowError or OSError before anything is written if an input is wrong."""
    import torch

    from naflow_fx.cli.encoder import Encoder
    from naflow_fx.pairs.embedding import compare, embed

    queries, folder = [Path(photo) for photo in args.query], Path(args.support)
    folders = places(args, [(query,) for query in queries])
    found = _folders(folder, Path(args.results))
    if args.match is not None and args.match not in found:
        near = difflib.get_close_matches(args.match, found, 5) or list(found)[:5]
        raise TargetError(f"--match {args.match}: no such folder; there are {', '.join(near)}")
    encoder = Encoder(args, queries[0])
    shots = _shots(encoder, found, folder)
    means = torch.stack([torch.stack(list(rows.values())).mean(0) for rows in shots.values()])
    rows = embed(encoder.embedder, encoder.inputs(queries))
    logits = compare(rows, means, encoder.similarity) * args.temperature
    for query, place, row in zip(queries, folders, logits.cpu(), strict=True):
        _print(encoder, query, row, {k: f"{len(shots[k])} of {len(found[k])}" for k in shots})
        _explain(encoder, query, place, dict(zip(shots, row.tolist(), strict=True)), shots)


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


def _shots(
    encoder: Encoder, found: dict[str, list[Path]], folder: Path
) -> dict[str, dict[Path, Tensor]]:
    """The classes with a usable shot, their shots with embeddings [D].

    Raises:
        PhotoError: they are not enough.
    """
    shots: dict[str, dict[Path, Tensor]] = {}
    for name, pictures in found.items():
        if rows := encoder.embed(pictures, f"encoding {name}", encoder.args.shots):
            shots[name] = rows
        elif name == encoder.args.match:
            raise PhotoError(f"{folder / name}: none of its pictures can be used")
    if len(shots) < 2:
        raise PhotoError(f"{folder}: {len(shots)} classes with usable pictures; wanted 2 or more")
    return shots


def _print(encoder: Encoder, query: Path, logits: Tensor, shots: dict[str, str]) -> None:
    """Prediction and a table of the classes, the likeliest first."""
    names, shares, temperature = list(shots), logits.softmax(0), encoder.args.temperature
    rows = []
    for i in logits.argsort(descending=True).tolist():
        similarity = f"{logits[i] / temperature:.4f}" if temperature else "-"
        rows.append((names[i], shots[names[i]], similarity, f"{logits[i]:.3f}", f"{shares[i]:.1%}"))
    head = ("class", "shots", "similarity", "logit", "probability")
    table = plain_table(head, rows, right=head[1:])
    show(table, title=f"{shown(query)}: {rows[0][0]} {rows[0][-1]}")


def _explain(
    encoder: Encoder,
    query: Path,
    place: Path,
    logits: dict[str, float],
    shots: dict[str, dict[Path, Tensor]],
) -> None:
    """Explain one query with the shots of a class and save."""
    best = max(logits, key=logits.__getitem__)
    match, name = encoder.args.match or best, shown(query)
    rows = ["query", *(f"{match} · {shown(shot)}" for shot in shots[match])]
    facts = {
        "question": question(encoder.args, query),
        "prediction": best,
        "match": match,
        "logits": logits,
        "temperature": encoder.args.temperature,
    }
    title = f"{name}: {best}" + (f", against {match}" if match != best else "")
    try:
        encoder.explain(place, query, list(shots[match]), rows, title, facts)
    except InputError as error:  # a similarity of exactly 0
        tell(f"{name} with {match} is not explained: {error}")
        return
    show(f"written: {place / 'grid.png'}, compared with {match}")
