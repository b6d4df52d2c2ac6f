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
from naflow_fx.cli.tables import plain_table, show
from naflow_fx.cli.variants import each
from naflow_fx.errors import InputError, PhotoError

if TYPE_CHECKING:
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
    import torch
    from torch import Tensor

    from naflow_fx.cli.encoder import check_folder, open_encoder, pictures_in
    from naflow_fx.models.preprocess import open_photo
    from naflow_fx.pairs.embedding import compare, embed

    query, gallery = Path(args.query), Path(args.gallery)
    photo = open_photo(query)
    check_folder(gallery)
    found = [p for p in pictures_in(gallery, Path(args.results)) if not p.samefile(query)]
    if not found:
        raise PhotoError(f"{gallery}: no picture in it, besides the query; check the path")
    (place,) = places(args, [(query,)])
    encoder = open_encoder(args, query, [place])
    image = encoder.inputs([photo])
    encoder.explainer(1, image)  # what is wrong with the options shows before the long search
    usable = encoder.embed(found, f"encoding {gallery.name}")
    if not usable:
        raise PhotoError(f"{gallery}: none of its {len(found)} pictures can be used")
    paths, rows = list(usable), torch.stack(list(usable.values()))
    similarity = compare(embed(encoder.embedder, image), rows, encoder.similarity)[0]
    best = similarity.topk(min(args.top_k, len(paths)))
    table = []
    for rank, (value, index) in enumerate(zip(*map(Tensor.tolist, best), strict=True), start=1):
        path = paths[index]
        inside = os.fsencode(path.relative_to(gallery)).decode("utf-8", "replace")
        picture = _explain(encoder, query, path, place / str(rank), rank, value, inside)
        table.append((str(rank), inside, f"{value:.4f}", picture))
    head = ("#", "hit", "similarity", "pictures")
    title = f"{shown(query)}: {len(table)} of {len(paths)} pictures"
    show(plain_table(head, table, right=("#", "similarity")), title=title)


def _explain(
    encoder: Encoder, query: Path, hit: Path, place: Path, rank: int, value: float, inside: str
) -> str:
    """Explain one hit and save the pictures; gives where, or that its similarity has no reason."""
    from naflow_fx.cli.encoder import tell

    rows = ["query", f"hit {rank} · {value:.3f}"]
    title = f"{shown(query)} and hit {rank}, {shown(hit)}"
    facts = {"question": question(encoder.args, query), "rank": rank, "hit": inside}
    try:
        encoder.explain(place, query, [hit], rows, title, facts)
    except InputError as error:  # a similarity of exactly 0
        tell(f"{inside} is not explained: {error}")
        return "-"
    return str(place / "grid.png")
