"""Ways to see a flow: a page, figures, moving pictures, a notebook. The work is done elsewhere."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from .explainer import Explainer
    from .flow_record import ClassNames
    from .inspection import Inspection
    from .plots import FlowFigure, Kind


class FlowViews:
    """Methods of `AttentionFlow` that show it."""

    def reconstruction(self) -> OrderedDict[str, Tensor]:
        """Z as a picture, what the inverse brings back: call site -> [N, C', *S] in [0, 1].

        Z starts at the final features and is led back with what was captured on the way: masks,
        indices, gates, never an activation. So it is the same whichever class is explained. C' = 3
        or 1 at sites of so many channels (the input of a photo): Z itself. Elsewhere C' = 1: the
        length of Z over the channels. S is the site's own space: [H, W], [L] of a signal, [D, H, W]
        of a volume. Each image is scaled from the 1st percentile of its values (nearest rank, over
        all of C' and S) to the 99th, and clipped; what is the same everywhere is 0. dtype and
        device are Z's. The final features, and the branches that make gates, show the activation
        itself: nothing is inverted there.

        How to look at it: with `Inverse(rows="used")` early sites show edges of the photo. Those
        come from the pattern of active neurons, not from the features' values, which fade with
        every damped step (tools/figures_reconstruction.py measures it). Its kin are deconvolution
        (Zeiler and Fergus 2014), which takes the pooling's indices along in the same way, and
        feature inversion (Mahendran and Vedaldi 2015), which has the features alone.

        Needs `keep="bpfm"`, with any method. FlowError without, or where Z is not finite. Where
        H = W = C, a channels-last site is read as channels first.
        """
        from .reconstruction import reconstruct

        return reconstruct(self)  # type: ignore[arg-type]

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
        A flow made with keep=("bpfm", "importance", "used") shows its `reconstruction`, the top
        channels and the share of abandoned neurons, too. Several models: `naflow_fx.save_report`.
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
