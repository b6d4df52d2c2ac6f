"""A run's results as one page: classes, depth curves, unusual photos, worst residuals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas
from PIL import Image

from naflow_fx.dataset import MEASURES, aggregate
from naflow_fx.dataset.curves import curve
from naflow_fx.dataset.decode import Decoder
from naflow_fx.dataset.results import Results, no_row, open_results, statistics_of
from naflow_fx.dataset.sources import open_source
from naflow_fx.errors import NaflowError
from naflow_fx.files import write
from naflow_fx.models.preprocess import Preprocessing
from naflow_fx.selection import evenly
from naflow_fx.subjects.inputs import scaled
from naflow_fx.view.colours import colourise, resize_map
from naflow_fx.view.html import POLICY, data_uri, render
from naflow_fx.view.record import class_words

CLASSES, COLUMNS, PHOTOS, LAYERS = 12, 7, 12, 15  # how many are shown
MEASURED = 24  # layers of which scatter and agreement are shown
MAP, THUMBNAIL = 72, 150  # pixels
Picture = tuple[str, tuple[int, int]]  # the file as an address, width and height


class Context:
    """What the sections of the page are made of.

    Attributes:
        results: the run's.
        rows: a row a photo; -1 where label or prediction are unknown.
        measures: of every photo at every layer.
        statistics: of some of the stored maps.
    """

    def __init__(self, results: Results) -> None:
        """Reads the rows."""
        self.results, self.rows = results, results.pandas()
        for name in ("label", "prediction"):
            self.rows[name] = self.rows[name].astype(float).fillna(-1).astype(int)
        self.measures = {
            name: pandas.DataFrame(np.stack(self.rows[name]), columns=results.layers, dtype=float)
            for name in MEASURES
        }
        self.statistics = statistics_of(results, MEASURED)


def write_report(folder: str | Path, path: str | Path) -> Path:
    """Writes the page about a folder of results: one HTML file that needs no network.

    Args:
        folder: of `explain_dataset`, of a run that still goes on, too.
        path: of the page.

    Raises:
        DatasetError: no results there.  OSError: the page can't be written.
    """
    results = open_results(folder)
    if not len(results):
        raise no_row(results)
    context, failed, manifest = Context(results), results.failed, results.manifest
    facts = {"source": manifest["source"], **manifest["job"], **manifest["environment"]}
    title = f"{results.model}: attention flow of {len(results):,} photos"
    left = facts["photos"] - len(results) - len(failed)
    page = render(
        "run.html", policy=POLICY, title=title, tiles=_tiles(context), left=left,
        classes=_classes(context), curves=_curves(context), unusual=_unusual(context),
        residuals=aggregate.worst_residuals(context.measures["residual"], LAYERS),
        failed=failed, facts=json.dumps(facts, indent=1, ensure_ascii=False),
    )  # fmt: skip
    return write(Path(path), page)


def _tiles(context: Context) -> list[tuple[str, str]]:
    """Numbers with their words, for the head of the page."""
    results, rows = context.results, context.rows
    tiles = [
        (f"{len(results):,}", "photos explained"),
        (f"{len(results.failed):,}", "failed"),
        (f"{len(results.layers)}", "layers"),
    ]
    if (rows["prediction"] >= 0).any():
        classes = rows["prediction"].nunique()
        tiles.append((f"{classes}", "classes predicted" if classes > 1 else "class predicted"))
        tiles.append((f"{rows['probability'].mean():.0%}", "mean probability"))
    if (found := context.statistics) is not None and not found.settling_depth.isnan().all():
        tiles.append((f"{found.settling_depth.nanmean():.2f}", "settling depth, 0 to 1"))
    labelled = rows[rows["label"] >= 0]
    if len(labelled):
        right = (labelled["prediction"] == labelled["label"]).mean()
        tiles.append((f"{right:.1%}", "predicted as labelled"))
    return tiles


def _classes(context: Context) -> dict[str, Any] | None:
    """Mean maps of the most frequent predicted classes."""
    known = context.rows[context.rows["prediction"] >= 0]
    classes = known.groupby("prediction")["score"].agg(["size", "mean"])
    if classes.empty or not context.results.stored:
        return None
    frequent = classes.sort_values("size", ascending=False, kind="stable").head(CLASSES)
    layers, names = _shown_layers(context, COLUMNS), context.results.class_names
    means = aggregate.mean_maps(context.results, layers, frequent.index.to_list())
    rows = frequent.assign(name=[class_words(names, one) for one in frequent.index],
                           maps=[[_map(means[one, layer]) for layer in layers]
                                 for one in frequent.index])  # fmt: skip
    return {"every": len(classes), "layers": layers, "rows": rows.to_dict("records")}


def _curves(context: Context) -> list[dict[str, Any]]:
    """Curves of the measures over the layers."""
    if len(context.results.layers) < 2:
        return []
    drawn = aggregate.depths(context.measures)
    if (found := context.statistics) is not None and len(found.layers) > 1:
        drawn |= aggregate.depths({
            name: pandas.DataFrame(found.values[name].numpy(), columns=found.layers)
            for name in ("scatter", "agreement")
        })  # fmt: skip
    return [{"name": name, **curve(name, depth)} for name, depth in drawn.items()]


def _unusual(context: Context) -> dict[str, Any] | None:
    """Cards of the photos that are furthest from the others."""
    found = aggregate.unusual(context.measures, PHOTOS)
    if found.empty:
        return None
    rows, layers = found.index.to_list(), _shown_layers(context, 3)
    maps = {layer: context.results.maps(layer)[rows].astype(float) for layer in layers}
    pictures = _photos(context, rows)
    cards = found.assign(id=context.rows["id"],
                         photo=[pictures.get(row) for row in rows],
                         prediction=[_prediction(context, row) for row in rows],
                         maps=[[_map(maps[layer][i]) for layer in layers]
                               for i in range(len(rows))])  # fmt: skip
    return {"layers": layers, "cards": cards.to_dict("records")}


def _prediction(context: Context, row: int) -> str:
    one = context.rows.loc[row]
    if one["prediction"] < 0:
        return f"score {one['score']:.3g}"
    words = class_words(context.results.class_names, one["prediction"])
    return f"{words}, {one['probability']:.1%}"


def _shown_layers(context: Context, count: int) -> list[str]:
    """Stored layers along depth; the input's map, bright points, only if there is room."""
    flat = [n for n in context.results.stored if len(context.results.shapes[n]) == 2]
    return evenly(flat[1:] if len(flat) > count else flat, count)


def _photos(context: Context, rows: Sequence[int]) -> dict[int, Picture]:
    """Pictures of what the network saw, of photos that are still where they were."""
    manifest = context.results.manifest
    prepare = manifest["job"]["explainer"]["preprocessing"]
    try:
        source = open_source(manifest["source"]["place"], manifest["source"]["kind"])
    except (NaflowError, OSError):
        return {}
    seen: Any = partial(_seen, prepare=prepare)
    decoder, found = Decoder(source, seen), {}
    for row in rows:
        wanted = context.rows.loc[row]
        if wanted["position"] < len(source.ids):
            photo, picture = decoder.photo(wanted["position"])
            if picture is not None and photo.sha256 == wanted["sha256"]:
                found[row] = _picture(cast(Any, picture), "jpeg")
    return found


def _seen(photo: Image.Image, prepare: Any) -> Image.Image:
    """The part of a photo that the network saw, at the thumbnail's size."""
    if isinstance(prepare, dict):  # else a function of the user's
        return scaled(Preprocessing(**prepare), THUMBNAIL).picture(photo)
    photo.thumbnail((THUMBNAIL, THUMBNAIL))
    return photo


def _map(values: aggregate.Floats) -> Picture:
    """A map in colours, up to its own largest value."""
    clipped = np.nan_to_num(np.maximum(values, 0))
    scaled = clipped / max(float(clipped.max()), 1e-30)
    return _picture(Image.fromarray(colourise(resize_map(scaled, (MAP, MAP)), "inferno")), "png")


def _picture(picture: Image.Image, form: str) -> Picture:
    """A picture's file as an address, and its size."""
    return data_uri(picture, form), picture.size
