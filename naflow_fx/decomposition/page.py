"""The tree of a decomposition as one HTML page: no script, no network, folding by <details>."""

from __future__ import annotations

from typing import Any

from naflow_fx.decomposition.pictures import map_uri, patch_box, photo_of, photo_uri
from naflow_fx.decomposition.tree import ROOT, Tree, share
from naflow_fx.view.colours import Bytes
from naflow_fx.view.html import POLICY, render


def page(found: Tree, photo: Any) -> str:
    """What `Decomposition.save_html` writes."""
    pixels = photo_of(found, photo)
    height, width = pixels.shape[:2]
    return render("decomposition.html", policy=POLICY, name=found.name, layers=found.layers,
                  cost=str(found.cost), photo=photo_uri(pixels), width=width, height=height,
                  root=_node(found, ROOT, pixels))  # fmt: skip


def _node(found: Tree, node: str, photo: Bytes) -> dict[str, Any]:
    """What the page shows of a node, with its children inside; of a leaf they are None."""
    facts = found.tree.nodes[node]
    called = found.name if facts["channel"] is None else f"channel {facts['channel']}"
    shown = {"title": found.title(node), "called": called, "layer": facts["layer"],
             "value": facts["evidence"], "share": facts["share"], "map": map_uri(facts["map"]),
             "patch": "", "children": None}  # fmt: skip
    if node != ROOT:
        box = patch_box(facts["peak"], tuple(facts["map"].shape))
        sides = zip(("left", "top", "width", "height"), box, strict=True)
        shown["ring"] = ";".join(f"{side}:{length:.2%}" for side, length in sides)
        shown["patch"] = _patch(*box, photo)
    if "bias" in facts:
        below = found.tree.successors(node)
        shown["children"] = [_node(found, child, photo) for child in below]
        constants = ", ".join(f"{k} {v:.3g}" for k, v in facts["constants"].items() if v)
        rest = (("all other channels", "remainder", ""), ("constants", "bias", constants))
        shown["rest"] = [
            {"title": title, "value": facts[key], "parts": parts,
             "share": share(facts[key], facts["evidence"])}
            for title, key, parts in rest
        ]  # fmt: skip
    return shown


def _patch(left: float, top: float, width: float, height: float, photo: Bytes) -> str:
    """The style of a box that shows a part of the photo, by its own picture, enlarged and moved."""
    x = left / (1 - width) if width < 1 else 0.0
    y = top / (1 - height) if height < 1 else 0.0
    shape = f"{width * photo.shape[1]:.1f} / {height * photo.shape[0]:.1f}"
    return (f"background-size:{1 / width:.2%} {1 / height:.2%};"
            f"background-position:{x:.2%} {y:.2%};aspect-ratio:{shape}")  # fmt: skip
