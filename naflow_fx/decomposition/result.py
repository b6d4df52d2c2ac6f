"""Decomposition: what `decompose` gives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from naflow_fx.decomposition.tree import Tree

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Decomposition(Tree):
    """A decision and the channels that support it: the fields of `Tree`, and ways to see them."""

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
        from naflow_fx.files import write

        return write(Path(path), page(self, photo))
