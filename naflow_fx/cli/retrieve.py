"""`naflow-fx retrieve`: the photos of a folder that are most alike a query, and why."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from naflow_fx.cli.base import Commands, command, count, option
from naflow_fx.cli.options import add_pair_options
from naflow_fx.cli.setup import places, question, shown
from naflow_fx.cli.tables import plain_table, show
from naflow_fx.cli.variants import each
from naflow_fx.errors import InputError, PhotoError

if TYPE_CHECKING:
    from naflow_fx.cli.encoder import Encoder

TEXT = "find the photos of a folder that are most alike, and why"
EXAMPLES = """\
GALLERY is searched with its subfolders for pictures (.png, .jpg, .webp, .tif, .bmp, .gif, ...).
Those that can't be read are named and left out; so are the query itself and what is in --out.

what is written, for each hit, best first, as `compare` does:
  DIR/<query>/1/grid.png, maps/*.png, flow.json; DIR/<query>/2/...

examples:
  naflow-fx retrieve cat.jpg photos/
  naflow-fx retrieve cat.jpg photos/ --top-k 3 --model resnet50 --weights IMAGENET1K_V2
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command(commands, retrieve, TEXT, EXAMPLES, "QUERY GALLERY")
    option(parser, "query QUERY", "a picture file")
    option(parser, "gallery GALLERY", "a folder of pictures")
    option(parser, "--top-k K", "hits", count, 5)
    add_pair_options(parser)


def retrieve(args: argparse.Namespace) -> None:
    """Run the command; NaflowError or OSError before anything is written if an input is wrong."""
    each(args, _retrieve)


def _retrieve(args: argparse.Namespace) -> None:
    """One method, into one folder."""
    from naflow_fx.cli.encoder import check_folder, open_encoder, pictures_in, report
    from naflow_fx.models.preprocess import open_photo
    from naflow_fx.pairs.embedding import compare, embed

    query, gallery = Path(args.query), Path(args.gallery)
    photo = open_photo(query)
    check_folder(gallery)
    found = [p for p in pictures_in(gallery, Path(args.results)) if not p.samefile(query)]
    if not found:
        raise PhotoError(f"{gallery}: no picture in it, besides the query; check the path")
    (place,) = places(args, [query.stem], [query])
    encoder = open_encoder(args, query, [place])
    image = encoder.inputs([photo])
    encoder.explainer(1, image)  # what is wrong with the options shows before the long search
    paths, rows, wrong = encoder.embed(found, f"encoding {gallery.name}")
    report(*(f"skipped: {message}" for message in wrong))
    if not paths:
        raise PhotoError(f"{gallery}: none of its {len(found)} pictures can be used")
    similarity = compare(embed(encoder.embedder, image), rows, encoder.similarity)[0]
    best = similarity.topk(min(args.top_k, len(paths)))
    hits = [(paths[i], value) for i, value in zip(best.indices, best.values.tolist(), strict=True)]
    pictures = [
        _explain(encoder, query, path, place / str(rank), rank, value, _inside(path, gallery))
        for rank, (path, value) in enumerate(hits, start=1)
    ]
    _print(query, gallery, len(paths), hits, pictures)


def _explain(
    encoder: Encoder, query: Path, hit: Path, place: Path, rank: int, value: float, inside: str
) -> str:
    """Explain one hit and save the pictures; gives where, or that its similarity has no reason."""
    from naflow_fx.cli.encoder import report

    rows = ["query", f"hit {rank} · {value:.3f}"]
    title = f"{shown(query)} and hit {rank}, {shown(hit)}"
    facts = {"question": question(encoder.args, query), "rank": rank, "hit": inside}
    try:
        encoder.explain(place, query, [hit], rows, title, facts)
    except InputError as error:  # a similarity of exactly 0
        report(f"{inside} is not explained: {error}")
        return "-"
    return str(place / "grid.png")


def _inside(path: Path, folder: Path) -> str:
    """The path below the folder, as text that can be printed."""
    return os.fsencode(path.relative_to(folder)).decode("utf-8", "replace")


def _print(
    query: Path, gallery: Path, count: int, hits: list[tuple[Path, float]], pictures: list[str]
) -> None:
    table = plain_table("#", "hit", "similarity", "pictures", right=("#", "similarity"))
    for rank, ((path, value), grid) in enumerate(zip(hits, pictures, strict=True), start=1):
        table.add_row(str(rank), Text(_inside(path, gallery)), f"{value:.4f}", Text(grid))
    show(table, title=f"{shown(query)}: {len(hits)} of {count} pictures")
