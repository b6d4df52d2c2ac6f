"""The picture's geometry: boxes, lines and labels in pixels, from rows, lanes and tracks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from naflow_fx.inspection.fold import Unit, with_starts
from naflow_fx.inspection.lanes import Wire, forward_lanes, nested_lanes, wires
from naflow_fx.inspection.parts import Column, Part, links_of, parts_of

if TYPE_CHECKING:
    from naflow_fx.inspection.inspection import Inspection

COLUMNS: tuple[Column, ...] = ("forward", "capture", "inverse", "importance", "map")
WIDTHS: dict[Column, int] = {
    "forward": 176, "capture": 104, "inverse": 204, "importance": 54, "map": 78,
}  # fmt: skip
GAP, LANE_GAP, COLUMN_GAP, TRACK, LINE, PAD = 26, 20, 34, 9, 14, 8  # pixels
TOP, LEFT = 64, 16  # of the first row, of the first column
ENTER = 12  # from the middle of a box
BRACKET = 18  # width of a block's bracket
Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A box in pixels."""

    part: Part
    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> Point:
        """Its centre."""
        return self.x + self.width / 2, self.y + self.height / 2


@dataclass(frozen=True)
class Line:
    """A wire in pixels; `kind` as an edge's; `faint`: it runs behind boxes."""

    kind: str
    points: tuple[Point, ...]
    faint: bool = False

    def turned(self) -> Line:
        """The same line the other way."""
        return Line(self.kind, self.points[::-1], self.faint)


@dataclass(frozen=True)
class Bracket:
    """The rows of an opened block, at the left."""

    name: str
    x: float
    top: float
    bottom: float


@dataclass
class Layout:
    """All that is drawn."""

    boxes: list[Box] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    brackets: list[Bracket] = field(default_factory=list)
    heads: dict[Column, float] = field(default_factory=dict)
    width: float = 0
    height: float = 0


def lay_out(inspection: Inspection, rows: Sequence[Unit]) -> Layout:
    """The geometry of the given rows of an inspection."""
    return _Builder(inspection, with_starts(inspection, rows)).build()


class _Builder:
    def __init__(self, inspection: Inspection, rows: list[Unit]) -> None:
        self.rows, self.made = rows, Layout()
        self.parts = parts_of(inspection, rows)
        self.links = list(links_of(self.parts, inspection.edges))
        self.lanes: dict[str, int] = {}
        self.wires: dict[Column, list[Wire]] = {}
        self.tracks: dict[Column, int] = {}
        self.left: dict[Column, float] = {}
        self.tops: list[float] = []
        self.heights: list[float] = []

    def build(self) -> Layout:
        """Rows, lanes, columns, then everything in its place."""
        self._place_rows()
        for column in COLUMNS:
            self._route(column)
        self._place_columns()
        self.made.boxes = [self._box(part) for part in self.parts]
        boxes = {box.part.key: box for box in self.made.boxes}
        for column in ("forward", "inverse", "importance"):
            for wire in self.wires[column]:
                self.made.lines.append(self._line(wire, boxes))
        self._across(boxes)
        self._brackets()
        return self.made

    def _of(self, column: Column) -> list[Part]:
        return [part for part in self.parts if part.column == column]

    def _place_rows(self) -> None:
        heights = [2 * LINE + 2 * PAD] * len(self.rows)
        for part in self.parts:
            if part.first == part.last:
                heights[part.first] = max(heights[part.first], _height(part))
        for part in self.parts:
            inside = sum(heights[part.first : part.last + 1]) + GAP * (part.last - part.first)
            heights[part.last] += max(0, _height(part) - inside)
        y = float(TOP)
        for height in heights:
            self.tops.append(y)
            y += height + GAP
        self.heights = [float(height) for height in heights]
        self.made.height = y

    def _route(self, column: Column) -> None:
        parts = self._of(column)
        links = [(a, b) for a, b, _ in self.links if a.column == b.column == column]
        nested = column == "inverse"
        self.lanes |= nested_lanes(parts) if nested else forward_lanes(parts, links)
        if column not in ("forward", "inverse"):
            self.lanes |= {part.key: 0 for part in parts}
        self.wires[column], self.tracks[column] = wires(parts, links, self.lanes)

    def _place_columns(self) -> None:
        depth = max((len(row.block.split(".")) for row in self.rows if row.block), default=0)
        x = float(LEFT + BRACKET * depth)
        for column in COLUMNS:
            parts = self._of(column)
            if not parts:
                continue
            right = column == "importance"
            x += 0 if right else TRACK * self.tracks[column]
            self.left[column] = x
            self.made.heads[column] = x
            lanes = 1 + max(self.lanes[part.key] for part in parts)
            x += lanes * (WIDTHS[column] + LANE_GAP) - LANE_GAP
            x += (TRACK * self.tracks[column] if right else 0) + COLUMN_GAP
        self.made.width = x - COLUMN_GAP + LEFT

    def _box(self, part: Part) -> Box:
        width = WIDTHS[part.column]
        x = self.left[part.column] + self.lanes[part.key] * (width + LANE_GAP)
        top, bottom = self.tops[part.first], self.tops[part.last] + self.heights[part.last]
        if part.first == part.last:  # its own height, in the middle of the row
            height = _height(part)
            top, bottom = top + (bottom - top - height) / 2, top + (bottom - top + height) / 2
        return Box(part, x, top, width, bottom - top)

    def _gap(self, above: int, lane: int) -> float:
        """The height at which wires run below row `above`; by their source's lane."""
        row = min(max(above, 0), len(self.tops) - 1)
        base = self.tops[row] - GAP if above < 0 else self.tops[row] + self.heights[row]
        return base + GAP / 2 + (lane % 5 - 2) * 4

    def _line(self, wire: Wire, boxes: dict[str, Box]) -> Line:
        """A wire between boxes of one column."""
        source, target = boxes[wire.source.key], boxes[wire.target.key]
        column, up = wire.source.column, wire.target.last < wire.source.first
        lane = self.lanes[wire.source.key]
        leave = source.y if up else source.y + source.height
        enter = target.y + target.height if up else target.y
        gap_in = self._gap(wire.target.last if up else wire.target.first - 1, lane)
        gap_out = self._gap(wire.source.first - 1 if up else wire.source.last, lane)
        xs, xt = source.middle[0], target.middle[0]
        if wire.where == "side":
            y = target.middle[1] + 5 * self.lanes[wire.target.key]
            return _straight(column, target, source, y).turned()
        track = self._track(column, wire.track)
        comes = track if wire.where == "track" else xs
        xt += ENTER * (comes > xt) - ENTER * (comes < xt)  # the straight ones go into the middle
        x = {"source": xs, "target": xt}.get(wire.where, track)
        points = ((xs, leave), (xs, gap_out), (x, gap_out), (x, gap_in), (xt, gap_in), (xt, enter))
        return Line(column, _simple(points))

    def _track(self, column: Column, number: int) -> float:
        """The middle of a track: right of the importance column, left of the others."""
        if column == "importance":
            return self.left[column] + WIDTHS[column] + TRACK * (number + 0.9)
        return self.left[column] - TRACK * (number + 0.9)

    def _across(self, boxes: dict[str, Box]) -> None:
        """Links between columns: an operator's captures, who reads them, Lambda to its map."""
        for box in boxes.values():
            if box.part.column in ("capture", "map"):
                owner = "forward" if box.part.column == "capture" else "importance"
                source = boxes.get(f"{owner}:{self.rows[box.part.first].id}")
                if source is not None:
                    self.made.lines.append(_straight("capture" if owner == "forward" else "map",
                                                     source, box, box.middle[1]))  # fmt: skip
        for a, b, _ in self.links:
            if a.column in ("forward", "capture") and b.column == "inverse":
                self._reads(boxes[a.key], boxes[b.key])

    def _reads(self, source: Box, target: Box) -> None:
        """An inverse step that reads what was captured in a row that it spans."""
        row, lane = source.part.first, self.lanes[target.part.key]
        if target.part.first <= row <= target.part.last:
            passes = source.part.column == "forward"  # behind what the row captures
            y = source.middle[1] + (8 if passes else 4 * lane)
            faint = passes or lane > 0
            self.made.lines.append(_straight("capture", source, target, y, faint))
        elif source.part.column == "forward":  # an activation: where Z starts, a gate
            below = target.part.first > row
            x, y = source.x + source.width - 14, source.y + source.height * below
            gap, beside = self._gap(row - (not below), 2), target.x - 10
            points = ((x, y), (x, gap), (beside, gap), (beside, target.middle[1] + 8 * below),
                      (target.x, target.middle[1] + 8 * below))  # fmt: skip
            self.made.lines.append(Line("capture", points))

    def _brackets(self) -> None:
        spans: dict[str, tuple[int, int]] = {}
        for i, row in enumerate(self.rows):
            parts = row.block.split(".") if row.block else []
            for depth in range(1, len(parts) + 1):
                name = ".".join(parts[:depth])
                spans[name] = spans.get(name, (i, i))[0], i
        for name, (first, last) in spans.items():
            x = LEFT + BRACKET * name.count(".") + BRACKET / 2
            bottom = self.tops[last] + self.heights[last]
            self.made.brackets.append(Bracket(name, x, self.tops[first], bottom))


def _height(part: Part) -> int:
    return len(part.lines) * LINE + 2 * PAD


def _straight(kind: str, source: Box, target: Box, y: float, faint: bool = False) -> Line:
    return Line(kind, ((source.x + source.width, y), (target.x, y)), faint)


def _simple(points: Sequence[Point]) -> tuple[Point, ...]:
    """Without points in a straight line between their neighbours."""
    found = list(points[:1])
    for point, after in zip(points[1:], [*points[2:], None], strict=True):
        flat = after is not None and any(
            found[-1][axis] == point[axis] == after[axis] for axis in (0, 1)
        )
        if point != found[-1] and not flat:
            found.append(point)
    return tuple(found)
