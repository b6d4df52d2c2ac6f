"""The tree of a decomposition as one HTML page: no script, no network, folding by <details>."""

from __future__ import annotations

from html import escape
from typing import Any

from naflow_fx.decomposition.page_style import STYLE
from naflow_fx.decomposition.pictures import map_uri, patch_box, photo_of, photo_uri
from naflow_fx.decomposition.result import ROOT, Decomposition, share
from naflow_fx.view.colours import Bytes

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
HOW = (
    "Each channel's <b>evidence</b> is its first-order share of what stands above it: derivative "
    "times activation, added up over the map. Children, all other channels and the constants add "
    "up to their parent. The picture is where that evidence lies; the patch is what excites the "
    "channel most in this photo."
)


def page(found: Decomposition, photo: Any) -> str:
    """What `Decomposition.save_html` writes."""
    pixels = photo_of(found, photo)
    name, layers = escape(found.name), " → ".join(map(escape, found.layers))
    tree = _node(found, ROOT, pixels)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>Why {name}?</title>
<style>{STYLE}
:root {{ --photo: url("{photo_uri(pixels)}"); --shape: {pixels.shape[1]} / {pixels.shape[0]}; }}
</style>
</head>
<body>
<header>
<h1>Why <em>{name}</em>?</h1>
<p>{HOW}</p>
<dl><div><dt>Layers</dt><dd>{layers}</dd></div>
<div><dt>Cost</dt><dd>{escape(str(found.cost))}</dd></div></dl>
</header>
<main>
{tree}
</main>
</body>
</html>
"""


def _node(found: Decomposition, node: str, photo: Bytes) -> str:
    """A node with its children inside; one that can't unfold is no <details>."""
    facts = found.tree.nodes[node]
    head = _head(found, node, photo)
    if "bias" not in facts:
        return f'<li class="leaf">{head}</li>'
    children = "".join(_node(found, child, photo) for child in found.tree.successors(node))
    above = _called(found, node)
    rest = _rest("all other channels", facts["remainder"], facts["evidence"], above)
    parts = ", ".join(f"{escape(k)} {v:.3g}" for k, v in facts["constants"].items() if v)
    rest += _rest("constants", facts["bias"], facts["evidence"], above, parts)
    is_open = " open" if node == ROOT else ""
    inside = f"<ul>{children}{rest}</ul>"
    if node == ROOT:
        return f'<details class="root"{is_open}><summary>{head}</summary>{inside}</details>'
    return f"<li><details><summary>{head}</summary>{inside}</details></li>"


def _head(found: Decomposition, node: str, photo: Bytes) -> str:
    """Pictures, name, evidence and share of one node."""
    facts = found.tree.nodes[node]
    title = escape(found.title(node))
    picture = f'<img src="{map_uri(facts["map"])}" alt="where {title} finds its evidence">'
    if node == ROOT:
        amount = f'<span class="amount">score {facts["evidence"]:.4g}</span>'
        return (f'<span class="map">{picture}</span>'
                f'<span class="text"><b>{title}</b>{amount}</span>')  # fmt: skip
    left, top, width, height = patch_box(facts["peak"], tuple(facts["map"].shape))
    ring = (f'<i class="ring" style="left:{left:.2%};top:{top:.2%};width:{width:.2%};'
            f'height:{height:.2%}"></i>')  # fmt: skip
    patch = _patch(left, top, width, height, photo)
    label = (f'<b>channel {facts["channel"]}</b><span class="layer">'
             f'{escape(facts["layer"])}</span>')  # fmt: skip
    (parent,) = found.tree.predecessors(node)
    amount = _amount(facts["evidence"], facts["share"], _called(found, parent))
    return (f'<span class="map">{picture}{ring}</span>{patch}'
            f'<span class="text">{label}{amount}</span>')  # fmt: skip


def _patch(left: float, top: float, width: float, height: float, photo: Bytes) -> str:
    """The part of the photo in a box, by the photo's own picture, enlarged and moved."""
    x = left / (1 - width) if width < 1 else 0.0
    y = top / (1 - height) if height < 1 else 0.0
    shape = f"{width * photo.shape[1]:.1f} / {height * photo.shape[0]:.1f}"
    style = (f"background-size:{1 / width:.2%} {1 / height:.2%};"
             f"background-position:{x:.2%} {y:.2%};aspect-ratio:{shape}")  # fmt: skip
    return f'<span class="patch" role="img" aria-label="its patch" style="{style}"></span>'


def _called(found: Decomposition, node: str) -> str:
    channel = found.tree.nodes[node]["channel"]
    return escape(found.name) if channel is None else f"channel {channel}"


def _rest(title: str, value: float, whole: float, above: str, parts: str = "") -> str:
    detail = f'<span class="layer">{parts}</span>' if parts else ""
    amount = _amount(value, share(value, whole), above)
    return f'<li class="rest"><span class="text"><b>{title}</b>{detail}{amount}</span></li>'


def _amount(value: float, part: float, above: str) -> str:
    """The evidence, its share of the parent's in words and as a bar (full at 100 %)."""
    kind = "bar minus" if part < 0 else "bar"
    text = f'<span class="amount">{value:.3g} <small>{part:.0%} of {above}</small></span>'
    return f'{text}<span class="{kind}"><i style="width:{min(abs(part), 1):.1%}"></i></span>'
