"""PairFlow: what one call of a pair explainer gives; `naflow_fx.view` draws and writes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from naflow_fx.flow import Scale
from naflow_fx.pairs.data import PairData


class PairFlow(PairData):
    """The flows of N pairs of images: the fields of `PairData`, and ways to see them."""

    def _repr_html_(self) -> str:
        """What a notebook shows: a line of facts, the queries' maps, the supports' maps."""
        from naflow_fx.view.notebook import of_flows

        return of_flows(repr(self), [self.query, self.support])

    def save(
        self,
        folder: str | Path,
        query_images: Any,
        support_images: Any,
        *,
        names: Sequence[str] | None = None,
        layers: Sequence[str] | None = None,
        alpha: float = 0.5,
        colormap: str = "inferno",
        scale: Scale = "map",
        title: str | None = None,
        info: Mapping[str, Any] | None = None,
        on_picture: Callable[[str], None] | None = None,
    ) -> list[Path]:
        """Write `grid.png`, `maps/NNN_<call site>.png` and `flow.json`; gives the N folders.

        The grid has one row an image, the query above its supports, and one column a call site;
        the other pictures show the query at the left.  One pair is written to `folder`, several
        to `folder/000`, `folder/001`, ...; whole or not at all, as `AttentionFlow.save` does.
        For pictures of one image alone: `flow.query.save(...)`.

        Args:
            folder: made if it is not there.
            query_images: N photos, as `AttentionFlow.overlay` takes them; a single one serves
                all pairs.
            support_images: N x shots of them, pair by pair; likewise.
            names: of a pair's rows, the query's first; None: query and support.
            layers: names or globs of call sites that are drawn; None: all.  flow.json has all.
            alpha: share of the colours, 0 to 1.
            colormap: "inferno", "magma", "viridis", "jet", "gray".
            scale: as in `AttentionFlow.normalised`, for each image by itself.
            title: heading of the grid, before the similarity.
            info: entries (JSON) that are added to flow.json; "model" and "metric" are shown.
            on_picture: called with each call-site name when its picture is made.

        Raises:
            FlowError: images or names that do not fit.  OSError: nothing can be written there.
        """
        from naflow_fx.view.pairs import save_pairs
        from naflow_fx.view.save import SaveStyle

        style = SaveStyle(layers=layers, alpha=alpha, colormap=colormap, scale=scale, title=title,
                     info=info or {}, on_picture=on_picture)  # fmt: skip
        return save_pairs(self, Path(folder), query_images, support_images, style, names)
