"""Find the photos of a folder that are most alike, and why.

GALLERY is searched with its subfolders for pictures (.png, .jpg, .webp, .tif, .bmp, .gif, ...).
Those that can't be read are named and left out; so are the query itself and what is in --out.

what is written, for each hit, best first, as `compare` does:
  DIR/<query>/1/grid.png, maps/*.png, flow.json; DIR/<query>/2/...

examples:
  naflow-fx retrieve cat.jpg photos/
  naflow-fx retrieve cat.jpg photos/ --top-k 3 --model resnet50 --weights IMAGENET1K_V2
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from naflow_fx.cli.options import add_pair_options
from naflow_fx.cli.parser import count, option
from naflow_fx.cli.setup import places, question, shown
from naflow_fx.cli.tables import plain_table, show, tell
from naflow_fx.cli.variants import each
from naflow_fx.errors import InputError, PhotoError

if TYPE_CHECKING:
    from torch import Tensor

    from naflow_fx.cli.encoder import Encoder


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    option(parser, "query QUERY", "a picture file")
    option(parser, "gallery GALLERY", "a folder of pictures")
    option(parser, "--top-k K", "hits", count, 5)
    add_pair_options(parser)


@each
def retrieve(args: argparse.Namespace) -> None:
    """Run the command; NaflowError or OSError before anything is written if an input is wrong."""
    from naflow_fx.cli.encoder import Encoder, check_folder, pictures_in

    query, gallery = Path(args.query), Path(args.gallery)
    (place,) = places(args, [(query,)])
    check_folder(gallery)
    found = [p for p in pictures_in(gallery, Path(args.results)) if not p.samefile(query)]
    if not found:
        raise PhotoError(f"{gallery}: no picture in it, besides the query; check the path")
    encoder = Encoder(args, query)
    image = encoder.inputs([query])
    encoder.explainer(1, image)  # what is wrong with the options shows before the long search
    rows = encoder.embed(found, f"encoding {gallery.name}", len(found))
    if not rows:
        raise PhotoError(f"{gallery}: none of its {len(found)} pictures can be used")
    table = []
    for rank, (path, value) in enumerate(_hits(encoder, image, rows), start=1):
        inside = os.fsencode(path.relative_to(gallery)).decode("utf-8", "replace")
        facts = {"question": question(args, query), "rank": rank, "hit": inside}
        title = f"{shown(query)} and hit {rank}, {shown(path)}"
        names, there = ["query", f"hit {rank} · {value:.3f}"], place / str(rank)
        grid = str(there / "grid.png")
        try:
            encoder.explain(there, query, [path], names, title, facts)
        except InputError as error:  # a similarity of exactly 0
            tell(f"{inside} is not explained: {error}")
            grid = "-"
        table.append((str(rank), inside, f"{value:.4f}", grid))
    head = ("#", "hit", "similarity", "pictures")
    title = f"{shown(query)}: {len(table)} of {len(rows)} pictures"
    show(plain_table(head, table, right=("#", "similarity")), title=title)


def _hits(encoder: Encoder, image: Tensor, rows: dict[Path, Tensor]) -> list[tuple[Path, float]]:
    """The pictures whose embeddings are most alike the image's, with their similarity."""
    import torch

    from naflow_fx.pairs.embedding import compare, embed

    paths, gallery = list(rows), torch.stack(list(rows.values()))
    similarity = compare(embed(encoder.embedder, image), gallery, encoder.similarity)[0]
    best = similarity.topk(min(encoder.args.top_k, len(paths)))
    return [(paths[i], v) for i, v in zip(best.indices, best.values.tolist(), strict=True)]
