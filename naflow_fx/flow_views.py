"""Ways to see a flow: a page, figures, moving pictures, a notebook. The work is done elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .explainer import Explainer
    from .flow_record import ClassNames
    from .inspection import Inspection
    from .plots import FlowFigure, Kind


class FlowViews:
    """Methods of `AttentionFlow` that show it."""

    def save_html(
        self,
        path: str | Path,
        images: Any,
        *,
        explainer: Explainer | Inspection | None = None,
        model: str | None = None,
        photos: Sequence[str] = (),
        class_names: ClassNames = None,
        title: str | None = None,
        colormap: str = "inferno",
        alpha: float = 0.5,
    ) -> Path:
        """Write one page, with nothing outside of it, to look through the layers in a browser.

        images: what the network saw, as for `overlay`. explainer: or its `inspect()`; with it the
        page has the inverse graph. model, photos: what to call them. class_names: class index ->
        words. title: heading, by default the model's name. colormap, alpha: to start with.
        A flow made with keep=("bpfm", "importance", "used") shows Z's energy, the top channels
        and the share of abandoned neurons, too. Several models: `naflow_fx.save_report`.
        Raises FlowError as `overlay` does, OSError when the file cannot be written.
        """
        from .viewer import ReportEntry, save_report
        from .viewer.record import inspected

        graph = None if explainer is None else inspected(explainer)
        name = model or (graph.model if graph else "") or "model"
        entry = ReportEntry(self, images, name, photos, graph, class_names)  # type: ignore[arg-type]
        return save_report(
            path, [entry], title=title or f"Attention flow: {name}", colormap=colormap, alpha=alpha
        )

    def plot(
        self,
        images: Any = None,
        kind: Kind = "grid",
        *,
        layers: Sequence[str] | None = None,
        alpha: float = 0.5,
        colormap: str = "inferno",
        title: str | None = None,
    ) -> FlowFigure:
        """A matplotlib figure; `figure.savefig(path)` writes it. Needs `naflow-fx[viz]`.

        kind: "grid", every layer of one image; "strip", eight layers along depth, a row an image;
        "depth", curves along depth: map entropy, residual, share of abandoned neurons if kept.
        images: as for `overlay`; without them the maps are drawn alone.
        layers: names and globs of call sites; None: all ("strip": eight, evenly along depth).
        Raises FlowError as `overlay` does, and for a "grid" of several images.
        """
        from .plots import plot

        return plot(
            self,  # type: ignore[arg-type]
            images, kind, layers=layers, alpha=alpha, colormap=colormap, title=title,
        )  # fmt: skip

    def save_gif(self, path: str | Path, images: Any, **look: Any) -> Path:
        """Write an animation through the layers; images side by side where there are several.

        images: as for `overlay`. look: `layers` (names, globs), `rate` (layers a second, 4),
        `size` (height in pixels, 320), `alpha` (0.5), `colormap` ("inferno").
        Raises FlowError as `overlay` does, OSError when the file cannot be written.
        """
        from .animation import Look, save_gif

        return save_gif(self, Path(path), images, Look(**look))  # type: ignore[arg-type]

    def save_mp4(self, path: str | Path, images: Any, **look: Any) -> Path:
        """The same as a film, H.264; needs the program ffmpeg.

        Raises FlowError without ffmpeg, too.
        """
        from .animation import Look, save_mp4

        return save_mp4(self, Path(path), images, Look(**look))  # type: ignore[arg-type]

    def _repr_html_(self) -> str:
        """What a notebook shows: a line of facts and eight maps along depth, a row an image."""
        from .viewer.notebook import of_flow

        return of_flow(self)  # type: ignore[arg-type]
