"""A run's results as one page: classes, depth curves, unusual photos, worst residuals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from PIL import Image

from naflow_fx.dataset import aggregate
from naflow_fx.dataset.curves import curve
from naflow_fx.dataset.decode import decode_one
from naflow_fx.dataset.folder import no_row
from naflow_fx.dataset.results import Results, open_results
from naflow_fx.dataset.sources import open_source
from naflow_fx.errors import NaflowError
from naflow_fx.files import write
from naflow_fx.models.preprocess import Preprocessing
from naflow_fx.selection import evenly
from naflow_fx.view.colours import colourise, resize_map
from naflow_fx.view.html import POLICY, data_uri, render

if TYPE_CHECKING:
    from naflow_fx.flow.statistics import Statistics

CLASSES, COLUMNS, PHOTOS, LAYERS, FAILED = 12, 7, 12, 15, 20  # how many are shown
MEASURED = 24  # layers of which scatter and agreement are shown
MAP, THUMBNAIL = 72, 150  # pixels
Picture = tuple[str, tuple[int, int]]  # the file as an address, width and height


@dataclass(frozen=True)
class Context:
    """What the sections of the page are made of."""

    results: Results
    single: Mapping[str, Any]
    measures: dict[str, aggregate.Floats]
    statistics: Statistics | None

    def name(self, index: int) -> str:
        """Words for a class."""
        names = self.results.class_names
        return names[index] if 0 <= index < len(names) else f"class {index}"

    @property
    def predicted(self) -> Any:
        """The predicted classes, -1 where the output is no row of scores."""
        return np.nan_to_num(self.single["prediction"].astype(float), nan=-1).astype(int)


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
        raise no_row(results.path, results.failed)
    statistics = aggregate.statistics_of(results, MEASURED)
    context = Context(results, *aggregate.measures_of(results), statistics)
    residual = context.measures["residual"]
    todo = results.manifest["job"]["photos"] - len(results) - len(results.failed)
    page = render(
        "run.html", policy=POLICY, title=_title(context), tiles=_tiles(context),
        left=0 if results.complete else todo,
        classes=_classes(context), curves=_curves(context), unusual=_unusual(context),
        residuals=aggregate.worst_residuals(residual, results.layers, LAYERS),
        failed=_failed(results), facts=_facts(results),
    )  # fmt: skip
    return write(Path(path), page)


def _title(context: Context) -> str:
    explainer = context.results.manifest["job"]["explainer"]
    model = explainer.get("model") or explainer.get("artefact") or explainer.get("make")
    return f"{model}: attention flow of {len(context.results):,} photos"


def _tiles(context: Context) -> list[tuple[str, str]]:
    """Numbers with their words, for the head of the page."""
    results, single = context.results, context.single
    tiles = [
        (f"{len(results):,}", "photos explained"),
        (f"{len(results.failed):,}", "failed"),
        (f"{len(results.layers)}", "layers"),
    ]
    if (context.predicted >= 0).any():
        classes = len(set(context.predicted))
        tiles.append((f"{classes}", "classes predicted" if classes > 1 else "class predicted"))
        tiles.append((f"{np.nanmean(single['probability']):.0%}", "mean probability"))
    if (found := context.statistics) is not None and not found.settling_depth.isnan().all():
        tiles.append((f"{found.settling_depth.nanmean():.2f}", "settling depth, 0 to 1"))
    labels = np.nan_to_num(single["label"].astype(float), nan=-1)
    if (labels >= 0).any():
        right = (context.predicted == labels)[labels >= 0].mean()
        tiles.append((f"{right:.1%}", "predicted as labelled"))
    return tiles


def _classes(context: Context) -> dict[str, Any] | None:
    """Mean maps of the most frequent predicted classes."""
    predicted = context.predicted
    classes, counts = np.unique(predicted[predicted >= 0], return_counts=True)
    if not len(classes) or not context.results.stored:
        return None
    order = np.argsort(-counts, kind="stable")[:CLASSES]
    layers = _shown_layers(context, COLUMNS)
    means = aggregate.mean_maps(context.results, layers, [int(classes[i]) for i in order])
    rows = [
        {
            "name": context.name(one),
            "count": count,
            "score": f"{context.single['score'][predicted == one].mean():.3g}",
            "maps": [_map(means[one, layer]) for layer in layers],
        }
        for one, count in ((int(classes[i]), int(counts[i])) for i in order)
    ]
    return {"every": len(classes), "layers": layers, "rows": rows}


def _curves(context: Context) -> list[dict[str, Any]]:
    """Curves of the measures over the layers."""
    layers = context.results.layers
    if len(layers) < 2:
        return []
    drawn = [(depth, layers) for depth in aggregate.depths(context.measures)]
    if (found := context.statistics) is not None and len(found.layers) > 1:
        also = {name: found.values[name].numpy() for name in ("scatter", "agreement")}
        drawn += [(depth, list(found.layers)) for depth in aggregate.depths(also)]
    return [{**curve(depth, along), "words": WORDS[depth.name]} for depth, along in drawn]


def _unusual(context: Context) -> dict[str, Any] | None:
    """Cards of the photos that are furthest from the others."""
    found = aggregate.unusual(context.measures, context.results.layers, PHOTOS)
    if not found:
        return None
    pictures = _photos(context, [one.row for one in found])
    layers = _shown_layers(context, 3)
    maps = {layer: context.results.maps(layer) for layer in layers}
    cards = [
        {
            "photo": pictures.get(one.row),
            "id": context.single["id"][one.row],
            "prediction": _prediction(context, one.row),
            "distance": one.distance,
            "where": "; ".join(f"{layer} ({measure})" for layer, measure in one.layers),
            "maps": [_map(maps[layer][one.row].astype(float)) for layer in layers],
        }
        for one in found
    ]
    return {"layers": layers, "cards": cards}


def _prediction(context: Context, row: int) -> str:
    predicted = int(context.predicted[row])
    if predicted < 0:
        return f"score {context.single['score'][row]:.3g}"
    return f"{context.name(predicted)}, {context.single['probability'][row]:.1%}"


def _failed(results: Results) -> dict[str, Any] | None:
    """Photos without a row."""
    failed = results.failed
    return {"shown": failed[:FAILED], "more": len(failed) - FAILED} if failed else None


def _facts(results: Results) -> str:
    """How the results were made."""
    manifest = results.manifest
    facts = {"source": manifest["source"], **manifest["job"], **manifest["environment"]}
    return json.dumps(facts, indent=1, ensure_ascii=False)


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
    found = {}
    for row in rows:
        position = int(context.single["position"][row])
        if position < len(source.ids):
            photo, picture = decode_one(source, seen, position)
            if picture is not None and photo.sha256 == context.single["sha256"][row]:
                found[row] = _picture(cast(Any, picture), "jpeg")
    return found


def _seen(photo: Image.Image, prepare: Any) -> Image.Image:
    """The part of a photo that the network saw, at the thumbnail's size."""
    if isinstance(prepare, dict) and isinstance(prepare.get("resize"), int):
        return Preprocessing(round(prepare["resize"] * THUMBNAIL / prepare["crop"]), THUMBNAIL
                             ).picture(photo)  # fmt: skip
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


WORDS = {
    "residual": ("", "residual", " of the inverse"),
    "norm_ratio": ("", "norm ratio", ": norm of Z as a multiple of the activation's"),
    "mean": ("", "mean", " value of the map"),
    "max": ("", "largest", " value of the map"),
    "active": ("", "active", ": share of positions above 0"),
    "spread": ("", "spread", ": entropy of the map; 1: even, 0: one point"),
    "scatter": ("", "scatter", ": share of the map outside of its largest part"),
    "agreement": ("", "agreement", " with the last map: rank correlation"),
}  # the second part stands out
