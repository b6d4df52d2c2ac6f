"""What the commands print: the result of one photo, and tables that a pipe can carry."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text
from torch import Tensor

from naflow_fx.errors import FlowError
from naflow_fx.flow import AttentionFlow
from naflow_fx.view.record import shape_text
from naflow_fx.view.terminal import printable


class _Printable(Console):
    """A console that shows what text holds, and obeys none of it."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """The segments, control characters of their texts written out."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable(text), style, control)


def console() -> Console:
    """The console on stdout: as wide as the terminal, or as wide as needed in a pipe or file."""
    return _Printable(width=None if sys.stdout.isatty() else 240, highlight=False)


def plain_table(*columns: str, right: Sequence[str] = ()) -> Table:
    """A table with a rule under its head; the columns named in `right` hold numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def print_flow(
    flow: AttentionFlow,
    drawn: Sequence[str],
    photo: str,
    place: Path,
    names: Sequence[str],
    verbose: bool,
) -> None:
    """Print prediction, what was explained and where the pictures of the layers `drawn` are.

    verbose: the numbers of all layers, too.
    """
    out = console()
    out.print(Text(f"{photo}: {prediction(flow, names)}", style="bold"))
    out.print(Text(f"explained: {explained(flow, names)}"))
    if verbose:
        out.print(layer_table(flow))
    few = f" of {len(flow.maps)}; every one: --layers all" if len(drawn) < len(flow.maps) else ""
    out.print(Text(f"written: {place / 'grid.png'}, flow.json, {len(drawn)} maps{few}"))


def prediction(flow: AttentionFlow, names: Sequence[str]) -> str:
    """The likeliest classes of the first image with their probabilities, or the box of it."""
    if (box := flow.about.info.get("detection")) is not None:
        return (f"box {box['index']} of {box['count']}, {_class(box['label'], names)} "
                f"{box['confidence']:.1%}, {box['where']}")  # fmt: skip
    try:
        best = flow.top5()[0]
    except FlowError:
        return "the output is not a row of class scores"
    first, *others = [f"{_class(c, names)} {p:.1%}" for c, p in best]
    return first + (f" (then {', '.join(others[:2])})" if others else "")


def explained(flow: AttentionFlow, names: Sequence[str]) -> str:
    """The class that the maps of the first image explain, and its score."""
    score = f"score {float(flow.score[0]):.4g}"
    if flow.target is None or int(flow.target[0]) < 0:
        return score
    target = int(flow.target[0])
    return f"class {target}, {_class(target, names)}, {score}"


def class_words(flow: AttentionFlow) -> str:
    """What the explained class of the first image is called."""
    if flow.target is None or int(flow.target[0]) < 0:
        return "score"
    return _class(int(flow.target[0]), flow.about.class_names)


def layer_table(flow: AttentionFlow) -> Table:
    """One row a call site: number, name, map size, and of the first image residual and norm ratio.

    Columns for which there is no number at all (methods without an inverse) are left out.
    """
    measures = {"residual": flow.residual, "norm ratio": flow.norm_ratio}
    measures = {name: values for name, values in measures.items() if values}
    table = plain_table("#", "layer", "map", *measures, right=("#", "map", *measures))
    for order, (name, maps) in enumerate(flow.maps.items(), start=1):
        numbers = [_short(values.get(name)) for values in measures.values()]
        table.add_row(str(order), Text(name), shape_text(maps), *numbers)
    return table


def _class(index: int, names: Sequence[str]) -> str:
    return names[index] if index < len(names) else f"class {index}"


def _short(values: Tensor | None) -> str:
    """The first of [N] with three digits, "-" where there is none."""
    return "-" if values is None else f"{float(values[0]):.3g}"
