"""Where boxes and wires go without running into each other: lanes for boxes, tracks for wires.

Every box has rows of its own in a lane of its column; a wire leaves a box at its reading end,
runs up or down a lane that is free, or a narrow track beside the column, and enters the next box
through the gap between two rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from naflow_fx.inspection.parts import Part

Where = Literal["source", "target", "track", "side"]


@dataclass(frozen=True)
class Wire:
    """How a link runs.

    Attributes:
        source, target: the boxes.
        where: the lane that it runs in: the source's, the target's, a track; "side": it leaves
            the source sideways, into a box beside it.
        track: its number.
    """

    source: Part
    target: Part
    where: Where
    track: int = 0


def forward_lanes(parts: Sequence[Part], links: Iterable[tuple[Part, Part]]) -> dict[str, int]:
    """Branches side by side: a lane for each box of the forward column, by key.

    A box goes below what it reads, unless another branch that is still to be read is there; a
    merge goes below the leftmost of what it merges.
    """
    sources: dict[str, list[Part]] = {}
    until: dict[str, int] = {}
    for source, target in links:
        sources.setdefault(target.key, []).append(source)
        until[source.key] = max(until.get(source.key, 0), target.first)
    lanes: dict[str, int] = {}
    latest: dict[int, Part] = {}
    for part in parts:
        read = [source for source in sources.get(part.key, ()) if source.key in lanes]
        lane = min((lanes[source.key] for source in read), default=0)
        while _taken(latest.get(lane), part, read, until):
            lane += 1
        lanes[part.key], latest[lane] = lane, part
    return lanes


def _taken(above: Part | None, part: Part, read: Sequence[Part], until: Mapping[str, int]) -> bool:
    """Whether the box above is another branch, to be read later."""
    if above is None or above in read:
        return False
    return until.get(above.key, 0) > part.first


def nested_lanes(parts: Sequence[Part]) -> dict[str, int]:
    """Boxes of several rows outside of those that they contain."""
    lanes: dict[str, int] = {}
    placed: list[Part] = []
    for part in sorted(parts, key=lambda p: (p.last - p.first, p.first)):
        inner = [lanes[p.key] for p in placed if p.first <= part.last and part.first <= p.last]
        lanes[part.key] = 1 + max(inner, default=-1)
        placed.append(part)
    return lanes


def wires(
    parts: Sequence[Part], links: Iterable[tuple[Part, Part]], lanes: Mapping[str, int]
) -> tuple[list[Wire], int]:
    """The wires of one column, and how many tracks they need."""
    rows_in: dict[int, set[int]] = {}
    for part in parts:
        rows_in.setdefault(lanes[part.key], set()).update(range(part.first, part.last + 1))
    found = [Wire(a, b, _where(a, b, lanes, rows_in)) for a, b in links]
    tracks = _tracks([wire for wire in found if wire.where == "track"])
    found = [Wire(w.source, w.target, w.where, tracks.get(w.source.key, 0)) for w in found]
    return found, 1 + max(tracks.values(), default=-1)


def _where(
    source: Part, target: Part, lanes: Mapping[str, int], rows_in: Mapping[int, set[int]]
) -> Where:
    """The lane in which nothing lies between two boxes, if there is one."""
    if target.first <= source.last and source.first <= target.last:
        return "side"
    above, below = sorted((source, target), key=lambda part: part.first)
    between = set(range(above.last + 1, below.first))
    places: tuple[tuple[Where, Part], ...] = (("source", source), ("target", target))
    free = [where for where, part in places if not rows_in[lanes[part.key]] & between]
    return free[0] if free else "track"


def _tracks(long: Sequence[Wire]) -> dict[str, int]:
    """A track for each box that needs one, so that no two share a stretch; short ones inside."""
    spans: dict[str, tuple[int, int]] = {}
    for wire in long:
        ends = sorted((wire.source.first, wire.target.first))
        low, high = spans.get(wire.source.key, (ends[0], ends[1]))
        spans[wire.source.key] = min(low, ends[0]), max(high, ends[1])
    tracks: dict[str, int] = {}
    for key, (low, high) in sorted(spans.items(), key=lambda item: item[1][1] - item[1][0]):
        taken = {tracks[k] for k, (a, b) in spans.items() if k in tracks and a <= high and low <= b}
        tracks[key] = next(i for i in range(len(spans)) if i not in taken)
    return tracks
