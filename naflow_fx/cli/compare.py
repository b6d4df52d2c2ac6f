"""`naflow-fx compare`: the similarity of two photos, and the maps of both."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from naflow_fx.cli.base import Commands, command
from naflow_fx.cli.options import add_pair_options
from naflow_fx.cli.variants import each

if TYPE_CHECKING:
    from naflow_fx.pairs import PairFlow

TEXT = "why are two photos alike? maps of both"
EXAMPLES = """\
what is written:
  DIR/<query>-<support>/grid.png     two rows of maps, one an image, from input to output
  DIR/<query>-<support>/maps/*.png   the same maps, the query at the left
  DIR/<query>-<support>/flow.json    similarity, names, shapes, residuals, options, versions

examples:
  naflow-fx compare cat.jpg other-cat.jpg
  naflow-fx compare cat.jpg dog.jpg --metric euclidean --layers 'head*' 'blocks.1?.add'
  naflow-fx compare a.jpg b.jpg --model resnet50_ms --weights my_checkpoint.pth
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command(commands, "compare", TEXT, EXAMPLES, "compare:compare", "QUERY SUPPORT")
    parser.add_argument("query", metavar="QUERY", help="a picture file")
    parser.add_argument("support", metavar="SUPPORT", help="what it is compared with")
    add_pair_options(parser)


def compare(args: argparse.Namespace) -> None:
    """Run the command; NaflowError or OSError before anything is written if an input is wrong."""
    each(args, _compare)


def _compare(args: argparse.Namespace) -> None:
    """One method, into one folder."""
    from naflow_fx.cli.encoder import open_encoder
    from naflow_fx.cli.photos import places, question, shown
    from naflow_fx.cli.tables import console
    from naflow_fx.models.preprocess import open_photo

    query, support = Path(args.query), Path(args.support)
    for photo in (query, support):
        open_photo(photo)
    asked = question(args, [query, support])
    (place,) = places([f"{query.stem}-{support.stem}"], Path(args.out), [asked])
    encoder = open_encoder(args, query, [place])
    title = f"{shown(query)} and {shown(support)}"
    flow = encoder.explain(
        place, query, [support], ["query", "support"], title, {"question": asked}
    )
    out = console()
    out.print(Text(f"{title}: {args.metric} similarity {float(flow.similarity[0]):.4f}",
                   style="bold"))  # fmt: skip
    out.print(pair_table(flow))
    out.print(Text(f"written: {place / 'grid.png'}, flow.json, {len(flow.query.maps)} maps"))


def pair_table(flow: PairFlow) -> Table:
    """One row a call site: number, name, map size, and of both images residual and norm ratio."""
    from naflow_fx.cli.tables import plain_table
    from naflow_fx.view.record import shape_text

    sides = {"query": flow.query, "support": flow.support}
    columns = [
        (f"{measure}, {side}", values)
        for measure, name in (("residual", "residual"), ("norm ratio", "norm_ratio"))
        for side, one in sides.items()
        if (values := getattr(one, name))
    ]
    heads = [head for head, _ in columns]
    table = plain_table("#", "layer", "map", *heads, right=("#", "map", *heads))
    for order, (name, maps) in enumerate(flow.query.maps.items(), start=1):
        numbers = [f"{float(v[name][0]):.3g}" if name in v else "-" for _, v in columns]
        table.add_row(str(order), Text(name), shape_text(maps), *numbers)
    return table
