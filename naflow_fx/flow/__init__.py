"""AttentionFlow: what one call of an explainer gives.

It is data (`data.py`); its methods that draw and write hand it to `naflow_fx.view`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from naflow_fx.flow.data import PARTS, TRUST, FlowData, Scale, top5
from naflow_fx.selection import choose

if TYPE_CHECKING:
    from torch import Tensor

    from naflow_fx.evaluation.data import Box
    from naflow_fx.flow.statistics import Statistics
    from naflow_fx.view.colours import Bytes
    from naflow_fx.view.figures import FlowFigure, Kind
    from naflow_fx.view.page.record import HasSteps
    from naflow_fx.view.record import ClassNames

__all__ = ["PARTS", "TRUST", "AttentionFlow", "FlowData", "Scale", "top5"]


class AttentionFlow(FlowData):
    """Attention maps of N images at every call site.

    It has the fields of `FlowData`, and ways to see them.
    """

    def overlay(
        self,
        images: Any = None,
        *,
        alpha: float = 0.5,
        colormap: str = "inferno",
        scale: Scale = "map",
        smooth: bool = True,
    ) -> OrderedDict[str, Bytes]:
        """The maps in colours over their images: call site -> RGB uint8 [N, H, W, 3].

        Args:
            images: uint8 RGB [N, H, W, 3], or a list of N [H, W, 3] or PIL images, of any size as
                long as all N have one and show what the network saw (the same crop): the maps are
                resized to them. Or floats [N, 3, H, W] as the network takes them; how those were
                normalised is not known here, so each is stretched from its smallest value (black)
                to its largest.
            alpha: share of the colours.
            colormap: "inferno", "magma", "viridis" (safe for the colour-blind), "jet", "gray".
            scale: as in `normalised`.
            smooth: bicubic; False shows the maps' own cells.

        Raises:
            FlowError: other images, values that are not finite, and maps that are not 2-d.
        """
        from naflow_fx.view.photos import Style, overlay

        style = Style(alpha=alpha, colormap=colormap, scale=scale, smooth=smooth)
        return overlay(self, images, style)

    def save(
        self,
        folder: str | Path,
        images: Any = None,
        *,
        layers: Sequence[str] | None = None,
        alpha: float = 0.5,
        colormap: str = "inferno",
        scale: Scale = "map",
        title: str | None = None,
        class_names: ClassNames = None,
        info: Mapping[str, Any] | None = None,
        on_picture: Callable[[str], None] | None = None,
        arrays: bool = False,
        smooth: bool = True,
    ) -> list[Path]:
        """Write `grid.png`, `maps/NNN_<call site>.png` and `flow.json`; gives the N folders.

        One image is written to `folder`, several to `folder/000`, `folder/001`, ... Everything is
        made in a temporary folder beside it and moved in at the end, so that nothing is ever
        half-written; files of an earlier `save` that are no longer made are removed, others stay.

        Args:
            folder: where to; it is made.
            images: as for `overlay`, but of any sizes; without them the maps are drawn alone.
            layers: names and globs of call sites that are drawn; None: all. flow.json tells of all.
            alpha: share of the colours.
            colormap: as for `overlay`.
            scale: as in `normalised`.
            title: heading of the grid.
            class_names: class index -> words, for heading and flow.json; None: what the flow of a
                `Subject` knows, as for the images.
            info: entries (JSON) that are added to flow.json.
            on_picture: called with each call-site name when its picture is made (a progress bar).
            arrays: also writes `maps.npz`, the raw map of every call site, [H_l, W_l], float32,
                under its name.
            smooth: as of `overlay`.

        Raises:
            FlowError: as `overlay` does.
            OSError: the folder cannot be written.
        """
        from naflow_fx.view.save import SaveStyle, save_flow

        about = self.about
        told = {**about.info, **(info or {})}
        title = title if title is not None or len(about.names) != 1 else about.names[0]
        style = SaveStyle(
            layers=layers,
            alpha=alpha,
            colormap=colormap,
            scale=scale,
            smooth=smooth,
            title=title,
            class_names=class_names,
            info=told,
            on_picture=on_picture,
            arrays=arrays,
        )
        return save_flow(self, Path(folder), images, style)

    def reconstruction(self) -> OrderedDict[str, Tensor]:
        """Z as a picture, what the inverse brings back: call site -> `[N, C', *S]` in [0, 1].

        Z starts at the final features and is led back with what was captured on the way: masks,
        indices, gates, never an activation. So it is the same whichever class is explained. C' = 3
        or 1 at sites of so many channels (the input of a photo): Z less what repeats every four
        pixels, if the site has 64 an axis; that is the pattern of a strided first layer and of its
        constants, the same for every photo. Elsewhere C' = 1: the length of Z over the channels.
        S is the site's own space: [H, W], [L] of a signal, [D, H, W] of a volume. Each image is
        scaled from the 1st percentile of its values (nearest rank, over all of C' and S) to the
        99th, and clipped; what is the same everywhere is 0. dtype and device are Z's. The final
        features, and the branches that make gates, show the activation itself: nothing is inverted
        there.

        How to look at it: with `Inverse(rows="used")` the input shows the photo's bright and dark
        parts and its edges. They come from which neurons are active and which are cut, not from the
        features' values, which fade with every damped step (tools/figures_reconstruction.py
        measures it). Its kin are deconvolution (Zeiler and Fergus 2014), which takes the pooling's
        indices along in the same way, and feature inversion (Mahendran and Vedaldi 2015), which has
        the features alone.

        Needs `keep="bpfm"`, with any method. FlowError without, or where Z is not finite. Where
        H = W = C, a channels-last site is read as channels first.
        """
        from naflow_fx.view.reconstruction import reconstruct

        return reconstruct(self)

    def save_html(
        self,
        path: str | Path,
        images: Any = None,
        *,
        explainer: HasSteps | None = None,
        model: str | None = None,
        photos: Sequence[str] = (),
        class_names: ClassNames = None,
        title: str | None = None,
        colormap: str = "inferno",
        alpha: float = 0.5,
    ) -> Path:
        """Write one page, with nothing outside of it, to look through the layers in a browser.

        A flow made with keep=("bpfm", "importance", "used") shows its `reconstruction`, the top
        channels and the share of abandoned neurons, too. Several models: `naflow_fx.save_report`.

        Args:
            path: the file.
            images: what the network saw, as for `overlay`.
            explainer: or its `inspect()`; with it the page has the inverse graph.
            model: what to call the network.
            photos: what to call the images.
            class_names: class index -> words.
            title: heading, by default the model's name.
            colormap: to start with.
            alpha: to start with.

        Raises:
            FlowError: as `overlay` does.
            OSError: the file cannot be written.
        """
        from naflow_fx.view.page import ReportEntry, save_report

        graph = None if explainer is None else explainer.inspect()
        told = model or self.about.info.get("model")
        name = told or (graph.model if graph else "") or "model"
        entry = ReportEntry(self, images, name, photos or self.about.names, graph, class_names)
        heading = title or f"Attention flow: {name}"
        return save_report(path, [entry], title=heading, colormap=colormap, alpha=alpha)

    def statistics(
        self,
        layers: Sequence[str] | None = None,
        *,
        box: Box | Sequence[Box] | None = None,
        mask: Tensor | None = None,
    ) -> Statistics:
        """A table of numbers: rows are call sites, columns are measures of their maps.

        "spread": entropy, 1 even, 0 one spot. "scatter": share of the map outside of its largest
        connected part above half the maximum. "agreement": rank correlation with the last map.
        "inside": share of the map inside the box or mask, if one is given. And the settling depth:
        from which layer on the agreement stays above 0.5. docs/statistics.md has the formulas.

        Args:
            layers: names and globs of call sites; None: all whose map has several positions.
            box: (left, top, right, bottom) in fractions of the network's input, one, or one a
                photo; an array of them will do.
            mask: bool [H, W] or [N, H, W], of the size of the network's input; a tensor or array.

        Raises:
            FlowError: layers, box or mask don't fit.
        """
        from naflow_fx.flow.statistics import pixels, table_of

        maps = {name: self.maps[name] for name in choose(list(self.maps), layers)}
        return table_of(maps, pixels(self, box, mask))

    def why_zero(self, site: str) -> list[str]:
        """Why the map of a call site is zero everywhere, a line for each of the N images.

        A line begins with what it was. "Lambda": no gradient reaches the call site (a saturated
        gate, a dead ReLU, `detach`). "Z": nothing was brought back. "apart": both have numbers, at
        no neuron together. "sign": Eq. 2 cuts the products away; then come the sums of the
        positive and of the negative ones, in units of the score. "not zero", "not finite": it is no
        map of zeros.
        Needs `keep=("bpfm", "importance")` and the default method. Raises FlowError without, and
        for a call site that the flow lacks.
        """
        from naflow_fx.flow.zeros import why_zero

        return why_zero(self, site)

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

        Args:
            images: as for `overlay`; without them the maps are drawn alone.
            kind: "grid", every layer of one image; "strip", eight layers along depth, a row an
                image; "depth", curves along depth: spread, scatter, agreement with the last map
                (docs/statistics.md), residual, share of abandoned neurons if kept.
            layers: names and globs of call sites; None: all ("strip": eight, evenly along depth).
            alpha: share of the colours.
            colormap: as for `overlay`.
            title: heading.

        Raises:
            FlowError: as `overlay` does, and for a "grid" of several images.
        """
        from naflow_fx.view.figures import plot
        from naflow_fx.view.photos import Style

        style = Style(layers=layers, alpha=alpha, colormap=colormap)
        return plot(self, images, kind, title, style)

    def save_gif(self, path: str | Path, images: Any = None, **look: Any) -> Path:
        """Write an animation through the layers; images side by side where there are several.

        images: as for `overlay`. look: `layers` (names, globs), `rate` (layers a second, 4),
        `size` (height in pixels, 320), `alpha` (0.5), `colormap` ("inferno"), `scale`, `smooth`.
        Raises FlowError as `overlay` does, OSError when the file cannot be written.
        """
        from naflow_fx.view.films import Look, save_gif

        return save_gif(self, Path(path), images, Look(**look))

    def save_mp4(self, path: str | Path, images: Any = None, **look: Any) -> Path:
        """The same as a film, H.264; needs the program ffmpeg.

        Raises FlowError without ffmpeg, too.
        """
        from naflow_fx.view.films import Look, save_mp4

        return save_mp4(self, Path(path), images, Look(**look))

    def _repr_html_(self) -> str:
        """What a notebook shows: a line of facts and eight maps along depth, a row an image."""
        from naflow_fx.view.notebook import of_flows

        return of_flows("", [self])
