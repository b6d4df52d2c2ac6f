"""What the commands print: results, tables that a pipe can carry, what takes its time."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from naflow_fx.errors import FlowError
from naflow_fx.view.progress import progress
from naflow_fx.view.terminal import printable, say

if TYPE_CHECKING:
    from naflow_fx.flow.data import FlowData


def show(*parts: str | Table, title: str = "") -> None:
    """Print on stdout, as wide as the terminal, or as wide as needed in a pipe or file."""
    out = Console(width=None if sys.stdout.isatty() else 240, highlight=False)
    if title:
        out.print(_text(title), style="bold")
    for part in parts:
        out.print(_text(part) if isinstance(part, str) else part)


def text_of(table: Table) -> str:
    """The table as text, as wide as needed."""
    file = io.StringIO()
    Console(file=file, width=240, highlight=False).print(table)
    return file.getvalue()


def _text(words: str) -> Text:
    """What the words hold, of which the terminal obeys none."""
    return Text(printable(words))


def plain_table(
    head: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()
) -> Table:
    """A table with a rule under its head; the columns named in `right` hold numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in head:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(_text, row))
    return table


def show_flow(flow: FlowData, drawn: Sequence[str], photo: str, place: Path, verbose: bool) -> None:
    """Print prediction, what was explained and where the pictures of the layers `drawn` are.

    verbose: the numbers of all layers, too.
    """
    table = [layer_table({"": flow})] if verbose else []
    told = f"explained: {explained(flow)}"
    show(told, *table, written(place, drawn, flow), title=f"{photo}: {prediction(flow)}")


def written(place: Path, drawn: Sequence[str], flow: FlowData) -> str:
    """Where the pictures of the layers `drawn` of a flow are."""
    few = f" of {len(flow.maps)}; every one: --layers all" if len(drawn) < len(flow.maps) else ""
    return f"written: {place / 'grid.png'}, flow.json, {len(drawn)} maps{few}"


def prediction(flow: FlowData) -> str:
    """The likeliest classes of the first image with their probabilities, or the box of it."""
    from naflow_fx.view.record import class_words

    names = flow.about.class_names
    if (box := flow.about.info.get("detection")) is not None:
        return (f"box {box['index']} of {box['count']}, {class_words(names, box['label'])} "
                f"{box['confidence']:.1%}, {box['where']}")  # fmt: skip
    try:
        best = flow.top5()[0]
    except FlowError:
        return "the output is not a row of class scores"
    first, *others = [f"{class_words(names, c)} {p:.1%}" for c, p in best]
    return first + (f" (then {', '.join(others[:2])})" if others else "")


def explained(flow: FlowData) -> str:
    """The class that the maps of the first image explain, and its score."""
    from naflow_fx.view.record import explained_class

    score, target = f"score {float(flow.score[0]):.4g}", explained_class(flow)
    return score if target is None else f"class {target}, {explained_words(flow)}, {score}"


def explained_words(flow: FlowData) -> str:
    """What the explained class of the first image is called."""
    from naflow_fx.view.record import class_words, explained_class

    target = explained_class(flow)
    return "score" if target is None else class_words(flow.about.class_names, target)


def layer_table(flows: Mapping[str, FlowData]) -> Table:
    """One row a call site: number, name, map size, and of first images residual and norm ratio.

    Columns for which there is no number at all (methods without an inverse) are left out.

    Args:
        flows: of the same call sites, under what its columns are called.
    """
    from naflow_fx.view.record import shape_text

    columns = {
        ", ".join(filter(None, (measure.replace("_", " "), name))): values
        for measure in ("residual", "norm_ratio")
        for name, flow in flows.items()
        if (values := getattr(flow, measure))
    }
    first = next(iter(flows.values()))
    rows = []
    for order, (site, maps) in enumerate(first.maps.items(), start=1):
        numbers = [f"{float(v[site][0]):.3g}" if site in v else "-" for v in columns.values()]
        rows.append([str(order), site, shape_text(maps), *numbers])
    return plain_table(("#", "layer", "map", *columns), rows, right=("#", "map", *columns))


@contextmanager
def news_aside() -> Iterator[None]:
    """Send what downloads print to stderr where that is a terminal, else nowhere."""
    with redirect_stdout(sys.stderr if sys.stderr.isatty() else io.StringIO()):
        yield


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Tell what takes its time, and for how long it has."""
    with progress(count=False) as bar, news_aside():
        bar.add_task(text, total=None)
        yield


def tell(*messages: str) -> None:
    """One line on stderr for each thing that went wrong without ending the work."""
    for message in messages:
        say(f"naflow-fx: {' '.join(message.split())}", error=True)
