"""Decomposition: what `decompose` gives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx as nx
from torch import Tensor

from naflow_fx.decomposition.cost import Cost
from naflow_fx.decomposition.tree import ROOT, Tree, share

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from naflow_fx.decomposition.grow import Node


class Decomposition(Tree):
    """A decision and the channels that support it: the fields of `Tree`, and ways to see them."""

    @classmethod
    def of(
        cls,
        root: Node,
        name: str,
        target: int | None,
        layers: tuple[str, ...],
        cost: Cost,
        image: Tensor,
    ) -> Decomposition:
        """The result of a grown tree."""
        tree = nx.DiGraph()
        _add(tree, ROOT, root, 1.0)
        return cls(tree, name, target, layers, cost, image)

    def plot(self, photo: Any = None, rows: int = 9) -> Figure:
        """The tree as a matplotlib figure: each node's map over the photo, edges by share.

        Args:
            photo: what the model saw: a PIL image, uint8 RGB [H, W, 3], or floats [3, H, W];
                None: `image`, stretched to black and white.
            rows: most nodes of a level; below one that is full, each node's first child only.

        Raises:
            FlowError: a photo of another form, or maps that are not of images.
            ArtefactError: matplotlib is missing.
        """
        from naflow_fx.decomposition.pictures import plot

        return plot(self, photo, rows)

    def save_html(self, path: str | Path, photo: Any = None) -> Path:
        """Writes the tree as one page that needs no network; nodes unfold on a click.

        Each node shows its map over the photo and the patch that excites its channel most: 3 x 3
        cells of the layer's grid, an eighth of the photo at least.

        Args:
            path: of the file; its folder is made.
            photo: as for `plot`.

        Raises:
            FlowError: a photo of another form, or maps that are not of images.
            OSError: the file can't be written.
        """
        from naflow_fx.decomposition.pictures import page
        from naflow_fx.view.files import write

        return write(Path(path), page(self, photo))


def _add(tree: nx.DiGraph, key: str, node: Node, part: float) -> None:
    facts: dict[str, Any] = {
        "layer": node.layer, "channel": node.channel, "evidence": node.evidence, "share": part,
        "map": node.map, "peak": node.peak,
    }  # fmt: skip
    if node.bias is not None:
        facts |= {"remainder": node.remainder, "bias": sum(node.bias.values()),
                  "constants": dict(node.bias)}  # fmt: skip
    tree.add_node(key, **facts)
    for i, child in enumerate(node.children, 1):
        below = str(i) if key == ROOT else f"{key}.{i}"
        _add(tree, below, child, share(child.evidence, node.evidence))
        tree.add_edge(key, below)
