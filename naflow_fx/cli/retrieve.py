"""`naflow-fx retrieve`: the photos of a folder that are most alike a query, and why."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from rich.text import Text

from naflow_fx.cli.encoder import open_encoder, pictures_in, report_skipped
from naflow_fx.cli.explain import _shown
from naflow_fx.cli.tables import console, plain_table
from naflow_fx.embedding import compare, embed
from naflow_fx.errors import PhotoError
from naflow_fx.models.preprocess import open_photo


def retrieve(args: argparse.Namespace) -> None:
    """Run the command; NaflowError or OSError before anything is written if an input is wrong."""
    query, gallery = Path(args.query), Path(args.gallery)
    photo = open_photo(query)
    found = [path for path in pictures_in(gallery) if not path.samefile(query)]
    if not found:
        raise PhotoError(f"{gallery}: no picture in it, besides the query; check the path")
    place = Path(args.out) / query.stem
    encoder = open_encoder(args, query, [place])
    image = encoder.inputs([photo])
    encoder.explainer(1, image)  # what is wrong with the options shows before the long search
    paths, rows, wrong = encoder.embed(found, f"encoding {gallery.name}")
    report_skipped(wrong)
    if not paths:
        raise PhotoError(f"{gallery}: none of its {len(found)} pictures can be used")
    similarity = compare(embed(encoder.embedder, image), rows, encoder.similarity)[0]
    best = similarity.topk(min(args.top_k, len(paths)))
    hits = [(paths[i], value) for i, value in zip(best.indices, best.values.tolist(), strict=True)]
    for rank, (path, value) in enumerate(hits, start=1):
        encoder.explain(
            place / str(rank), query, [path], ["query", f"hit {rank} · {value:.3f}"],
            f"{_shown(query)} and hit {rank}, {_shown(path)}",
            {"rank": rank, "hit": _inside(path, gallery)},
        )  # fmt: skip
    _print(query, gallery, len(paths), hits, place)


def _inside(path: Path, folder: Path) -> str:
    """The path below the folder, as text that can be printed."""
    return os.fsencode(path.relative_to(folder)).decode("utf-8", "replace")


def _print(
    query: Path, gallery: Path, count: int, hits: list[tuple[Path, float]], place: Path
) -> None:
    out = console()
    out.print(Text(f"{_shown(query)}: {len(hits)} of {count} pictures", style="bold"))
    table = plain_table("#", "hit", "similarity", "pictures", right=("#", "similarity"))
    for rank, (path, value) in enumerate(hits, start=1):
        grid = Text(str(place / str(rank) / "grid.png"))
        table.add_row(str(rank), Text(_inside(path, gallery)), f"{value:.4f}", grid)
    out.print(table)
