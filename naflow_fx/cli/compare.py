"""Why are two photos alike? maps of both.

what is written:
  DIR/<query>-<support>/grid.png     two rows of maps of twelve layers, one an image
  DIR/<query>-<support>/maps/*.png   the same maps, the query at the left
  DIR/<query>-<support>/flow.json    similarity, names, shapes, residuals, options, versions

examples:
  naflow-fx compare cat.jpg other-cat.jpg
  naflow-fx compare cat.jpg other-cat.jpg --layers all
  naflow-fx compare cat.jpg dog.jpg --metric euclidean --layers 'head*' 'blocks.1?.add'
  naflow-fx compare a.jpg b.jpg --model resnet50_ms --weights my_checkpoint.pth
"""

from __future__ import annotations

import argparse
from pathlib import Path

from naflow_fx.cli.options import add_pair_options
from naflow_fx.cli.parser import option
from naflow_fx.cli.setup import drawn, places, question, shown
from naflow_fx.cli.tables import layer_table, show, written
from naflow_fx.cli.variants import each


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    option(parser, "query QUERY", "a picture file")
    option(parser, "support SUPPORT", "what it is compared with")
    add_pair_options(parser)


@each
def compare(args: argparse.Namespace) -> None:
    """Run the command; NaflowError or OSError before anything is written if an input is wrong."""
    from naflow_fx.cli.encoder import Encoder

    query, support = Path(args.query), Path(args.support)
    (place,) = places(args, [(query, support)])
    encoder = Encoder(args, query)
    title = f"{shown(query)} and {shown(support)}"
    facts = {"question": question(args, query, support)}
    flow = encoder.explain(place, query, [support], ["query", "support"], title, facts)
    show(
        layer_table({"query": flow.query, "support": flow.support}),
        written(place, drawn(args, list(flow.query.maps)), flow.query),
        title=f"{title}: {args.metric} similarity {float(flow.similarity[0]):.4f}",
    )
