"""The picture as SVG, for light and dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from naflow_fx.inspection.fold import Unit
from naflow_fx.inspection.layout import LINE, PAD, WIDTHS, Box, Bracket, Layout, Line, lay_out

if TYPE_CHECKING:
    from naflow_fx.inspection.inspection import Inspection

HEADS = {
    "forward": "forward", "capture": "captured", "inverse": "inverse: Z, read upwards",
    "importance": "Λ", "map": "map",
}  # fmt: skip
LEGEND = (
    "thick border: least squares; dashed border: the activation itself, or carried forward from "
    "the fork",
    "dotted line: read behind other steps; map, with Z of the step that names the layer: ",
)
LETTER = 6.63  # width of a letter of the 11 pixel monospaced font
# After Okabe and Ito, for the colour-blind: stroke and fill on a light page, and on a dark one.
COLOURS = {
    "forward": ("#0072b2", "#e8f2f9", "#56a9dd", "#10293a"),
    "capture": ("#b37700", "#fdf4e0", "#d6a02a", "#362a0c"),
    "inverse": ("#c05000", "#fdeee4", "#ea8448", "#3a2112"),
    "importance": ("#00805c", "#e3f5ef", "#3dbb93", "#0c2f26"),
    "map": ("#8a4f7d", "#f7ecf4", "#bd86b1", "#30202c"),
}


def draw(inspection: Inspection, rows: Sequence[Unit], title: str) -> str:
    """The SVG text of a picture of the given rows."""
    layout = lay_out(inspection, rows)
    width, height = round(layout.width), round(layout.height) + LINE * len(LEGEND)
    root = ET.Element("svg", {
        "xmlns": "http://www.w3.org/2000/svg", "viewBox": f"0 0 {width} {height}",
        "width": str(width), "height": str(height), "role": "img", "class": "naflow",
    })  # fmt: skip
    ET.SubElement(root, "title").text = title
    ET.SubElement(root, "style").text = _style()
    _markers(ET.SubElement(root, "defs"))
    ET.SubElement(root, "rect", {"class": "page", "width": "100%", "height": "100%"})
    _text(root, layout, title)
    if "inverse" in layout.heads:
        _legend(root, layout, next((n.doc for n in inspection.nodes if n.kind == "map"), ""))
    for bracket in layout.brackets:
        _bracket(root, bracket)
    for line in sorted(layout.lines, key=lambda line: not line.faint):
        _line(root, line)
    for box in layout.boxes:
        _box(root, box)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def _style() -> str:
    rules = [
        "text{font:11px ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace;fill:#1b1f24}",
        ".page{fill:#fff}.small{fill:#57606a}.name{font-weight:600}.head{font-size:12px}",
        "path{fill:none;stroke-width:1.3}.faint{stroke-dasharray:2 3;opacity:.6}",
        ".box rect{stroke-width:1.2}.bracket{stroke:#8c959f}",
        ".solved rect{stroke-width:2.2}.again rect{stroke-dasharray:4 3}",
    ]
    dark = [".page{fill:#0d1117}text{fill:#e6edf3}.small{fill:#9aa4af}.bracket{stroke:#6e7681}"]
    for kind, (stroke, fill, dark_stroke, dark_fill) in COLOURS.items():
        rules.append(_rule(kind, stroke, fill))
        dark.append(_rule(kind, dark_stroke, dark_fill))
    return "".join(rules) + "@media(prefers-color-scheme:dark){" + "".join(dark) + "}"


def _rule(kind: str, stroke: str, fill: str) -> str:
    return (f".{kind} rect{{fill:{fill};stroke:{stroke}}}.{kind}-line{{stroke:{stroke}}}"
            f".{kind}-end{{fill:{stroke}}}")  # fmt: skip


def _markers(defs: ET.Element) -> None:
    for kind in COLOURS:
        marker = ET.SubElement(defs, "marker", {
            "id": f"naflow-{kind}", "viewBox": "0 0 8 8", "refX": "7.5", "refY": "4",
            "markerWidth": "7", "markerHeight": "7", "orient": "auto",
        })  # fmt: skip
        ET.SubElement(marker, "path", {"d": "M0 0L8 4L0 8z", "class": f"{kind}-end"})


def _text(root: ET.Element, layout: Layout, title: str) -> None:
    """Title and heads of the columns."""
    ET.SubElement(root, "text", {"x": "16", "y": "22", "class": "name head"}).text = title
    for column, x in layout.heads.items():
        place = {"x": f"{x:g}", "y": "48", "class": "small"}
        ET.SubElement(root, "text", place).text = HEADS[column]


def _legend(root: ET.Element, layout: Layout, map: str) -> None:
    for i, line in enumerate((LEGEND[0], LEGEND[1] + map.partition(".  ")[0])):
        place = {"x": "16", "y": f"{layout.height + LINE * i:g}", "class": "small"}
        ET.SubElement(root, "text", place).text = line


def _bracket(root: ET.Element, bracket: Bracket) -> None:
    x, top, bottom = bracket.x, bracket.top, bracket.bottom
    path = f"M{x + 7:g} {top:g}H{x:g}V{bottom:g}H{x + 7:g}"
    ET.SubElement(root, "path", {"d": path, "class": "bracket"})
    y, room = (top + bottom) / 2, int((bottom - top) / LETTER)
    label = ET.SubElement(root, "text", {
        "transform": f"translate({x - 3:g} {y:g}) rotate(-90)", "text-anchor": "middle",
        "class": "small",
    })  # fmt: skip
    label.text = shorten(bracket.name, room)


def _line(root: ET.Element, line: Line) -> None:
    path = "M" + "L".join(f"{x:g} {y:g}" for x, y in line.points)
    names = f"{line.kind}-line" + (" faint" if line.faint else "")
    place = {"d": path, "class": names, "marker-end": f"url(#naflow-{line.kind})"}
    ET.SubElement(root, "path", place)


def _box(root: ET.Element, box: Box) -> None:
    part, how = box.part, {node.how for node in box.part.nodes}
    names = ["box", part.column]
    names += ["solved"] if len(how) == 1 and how <= {"least squares"} else []
    names += ["again"] if len(how) == 1 and how <= {"propagated", "start", "control"} else []
    group = ET.SubElement(root, "g", {"class": " ".join(names), "data-id": part.key})
    ET.SubElement(group, "title").text = part.title
    ET.SubElement(group, "rect", {
        "x": f"{box.x:g}", "y": f"{box.y:g}", "width": f"{box.width:g}",
        "height": f"{box.height:g}", "rx": "4",
    })  # fmt: skip
    room = int((WIDTHS[part.column] - 2 * PAD) / LETTER)
    top = box.middle[1] - len(part.lines) * LINE / 2
    for i, line in enumerate(part.lines):
        text = ET.SubElement(group, "text", {
            "x": f"{box.x + PAD:g}", "y": f"{top + i * LINE + 10.5:g}",
            "class": "small" if i else "name",
        })  # fmt: skip
        text.text = shorten(line, room)


def shorten(text: str, room: int) -> str:
    """At most `room` letters, the middle left out: a name's end tells it from others."""
    if len(text) <= room:
        return text
    back = max(0, (room - 1) * 2 // 3)
    return f"{text[: max(0, room - 1 - back)]}…{text[len(text) - back :]}"
