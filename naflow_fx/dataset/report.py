"""A run's results as one page: classes, depth curves, unusual photos, worst residuals."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from naflow_fx.dataset import aggregate, report_svg
from naflow_fx.dataset.decode import Named
from naflow_fx.dataset.parts import write_text
from naflow_fx.dataset.report_style import STYLE
from naflow_fx.dataset.results import Results, open_results
from naflow_fx.dataset.sources import open_source
from naflow_fx.errors import NaflowError
from naflow_fx.models.preprocess import Preprocessing, open_photo
from naflow_fx.selection import spread
from naflow_fx.view.colours import colourise, resize_map

CLASSES, COLUMNS, PHOTOS, LAYERS, FAILED = 12, 7, 12, 15, 20  # how many are shown
MAP, THUMBNAIL = 72, 150  # pixels


@dataclass(frozen=True)
class Context:
    """What the sections of the page are made of."""

    results: Results
    single: Mapping[str, Any]
    measures: dict[str, aggregate.Floats]

    def name(self, index: int) -> str:
        """Words for a class, escaped."""
        names = self.results.class_names
        return escape(names[index] if 0 <= index < len(names) else f"class {index}")

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
        from naflow_fx.errors import DatasetError

        raise DatasetError(f"{folder}: no photo has a row; see failed.jsonl")
    context = Context(results, *aggregate.measures_of(results))
    sections = (_classes, _depth, _unusual, _residuals, _failed, _made)
    body = "\n".join([_head(context), *(section(context) for section in sections)])
    page = (f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport "
            f'content="width=device-width"><title>{escape(_title(context))}</title>'
            f"<style>{STYLE}</style><main>{body}</main></html>\n")  # fmt: skip
    write_text(Path(path), page)
    return Path(path)


def _title(context: Context) -> str:
    explainer = context.results.manifest["job"]["explainer"]
    model = explainer.get("model") or explainer.get("artefact") or explainer.get("make")
    return f"{model}: attention flow of {len(context.results):,} photos"


def _head(context: Context) -> str:
    results, single = context.results, context.single
    photos = results.manifest["job"]["photos"]
    tiles = [
        (f"{len(results):,}", "photos explained"),
        (f"{len(results.failed):,}", "failed"),
        (f"{len(results.layers)}", "layers"),
    ]
    if (context.predicted >= 0).any():
        classes = len(set(context.predicted))
        tiles.append((f"{classes}", "classes predicted" if classes > 1 else "class predicted"))
        tiles.append((f"{np.nanmean(single['probability']):.0%}", "mean probability"))
    labels = np.nan_to_num(single["label"].astype(float), nan=-1)
    if (labels >= 0).any():
        right = (context.predicted == labels)[labels >= 0].mean()
        tiles.append((f"{right:.1%}", "predicted as labelled"))
    cells = "".join(f"<div><b>{value}</b>{text}</div>" for value, text in tiles)
    rest = photos - len(results) - len(results.failed)
    note = "" if results.complete else f"<p class=note>{rest:,} photos are still to do.</p>"
    return f"<h1>{escape(_title(context))}</h1>{note}<div class=tiles>{cells}</div>"


def _classes(context: Context) -> str:
    """Mean maps of the most frequent predicted classes."""
    predicted, stored = context.predicted, context.results.stored
    classes, counts = np.unique(predicted[predicted >= 0], return_counts=True)
    if not len(classes) or not stored:
        return ""
    order = np.argsort(-counts, kind="stable")[:CLASSES]
    shown = [int(classes[i]) for i in order]
    layers = _shown_layers(context, COLUMNS)
    means = aggregate.mean_maps(context.results, layers, shown)
    head = "".join(f"<th>{_breakable(layer)}</th>" for layer in layers)
    rows = []
    for i, one in zip(order, shown, strict=True):
        score = context.single["score"][predicted == one].mean()
        words = f"<b>{context.name(one)}</b><br>{counts[i]} photos, mean score {score:.3g}"
        cells = "".join(f"<td>{_map(means[one, layer])}</td>" for layer in layers)
        rows.append(f"<tr><td>{words}</td>{cells}</tr>")
    more = "" if len(classes) <= CLASSES else (
        f" The {CLASSES} most frequent of {len(classes)} classes.")  # fmt: skip
    return (f"<h2>Mean flow per class</h2><p>Every photo's map divided by its largest value, then "
            f"averaged over the photos that were predicted as the class; each mean is drawn up to "
            f"its own largest value.{more}</p><div class=wide><table class=maps><tr><th></th>{head}"
            f"</tr>{''.join(rows)}</table></div>")  # fmt: skip


def _depth(context: Context) -> str:
    """Curves of the measures over the layers."""
    layers = context.results.layers
    if len(layers) < 2:
        return ""
    plots = "".join(
        f"<figure>{report_svg.curve(depth, layers)}<figcaption>{WORDS[depth.name]}</figcaption>"
        "</figure>"
        for depth in aggregate.depths(context.measures)
    )
    return (f"<h2>Along depth</h2><p>From the input at the left to the last layer at the right. "
            f"Line: mean over the photos; dark band: its 95&nbsp;% interval; light band: tenth to "
            f"ninetieth percentile of the photos.</p><div class=plots>{plots}</div>")  # fmt: skip


def _unusual(context: Context) -> str:
    """Cards of the photos that are furthest from the others."""
    found = aggregate.unusual(context.measures, context.results.layers, PHOTOS)
    if not found:
        return ""
    pictures = _photos(context, [one.row for one in found])
    layers = _shown_layers(context, 3)
    maps = {layer: context.results.maps(layer) for layer in layers}
    cards = []
    for one in found:
        where = "; ".join(f"{escape(layer)} ({measure})" for layer, measure in one.layers)
        drawn = "".join(_map(maps[layer][one.row].astype(float)) for layer in layers)
        cards.append(f"<div class=card>{pictures.get(one.row, '')}<div><b>"
                     f"{escape(str(context.single['id'][one.row]))}</b><br>"
                     f"{_prediction(context, one.row)}<br>distance {one.distance:.2f}"
                     f"<br><small>furthest at {where}</small><div class=row>{drawn}</div></div>"
                     "</div>")  # fmt: skip
    names = ", ".join(f"<i>{escape(layer)}</i>" for layer in layers)
    return (f"<h2>The most unusual photos</h2><p>Distance: how far the measures of all layers lie "
            f"from those of the median photo, in units of the photos' own spread. The small maps: "
            f"{names}.</p><div class=cards>{''.join(cards)}</div>")  # fmt: skip


def _prediction(context: Context, row: int) -> str:
    predicted = int(context.predicted[row])
    if predicted < 0:
        return f"score {context.single['score'][row]:.3g}"
    return f"{context.name(predicted)}, {context.single['probability'][row]:.1%}"


def _residuals(context: Context) -> str:
    """The layers whose inverse explains least."""
    rows = aggregate.worst_residuals(context.measures["residual"], context.results.layers, LAYERS)
    if not rows:
        return ""
    cells = "".join(
        f"<tr><td>{escape(row['layer'])}</td><td><div class=bar style='width:"
        f"{min(row['median'], 1) * 100:.1f}%'></div></td><td class=n>{row['median']:.3f}</td>"
        f"<td class=n>{row['p90']:.3f}</td><td class=n>{row['poor']:.0%}</td></tr>"
        for row in rows
    )
    return (f"<h2>Layers with the worst residuals</h2><p>The relative residual of the inverse: "
            f"near 1 it explains little of what came from above, and such a map is to be read with "
            f"care.</p><table><tr><th>layer</th><th class=bars></th><th class=n>median</th>"
            f"<th class=n>90&nbsp;% below</th><th class=n>photos above 0.9</th></tr>{cells}"
            f"</table>")  # fmt: skip


def _failed(context: Context) -> str:
    """Photos without a row."""
    failed = context.results.failed
    if not failed:
        return ""
    rows = "".join(f"<tr><td>{escape(f['id'])}</td><td>{escape(f['reason'])}</td></tr>"
                   for f in failed[:FAILED])  # fmt: skip
    more = f"<p>{len(failed) - FAILED} more in failed.jsonl.</p>" if len(failed) > FAILED else ""
    return f"<h2>Photos that could not be opened</h2><table>{rows}</table>{more}"


def _made(context: Context) -> str:
    """How the results were made."""
    manifest = context.results.manifest
    facts = {"source": manifest["source"], **manifest["job"], **manifest["environment"]}
    text = json.dumps(facts, indent=1, ensure_ascii=False)
    return f"<h2>How it was made</h2><details><summary>The job</summary><pre>{escape(text)}</pre></details>"  # noqa: E501


def _shown_layers(context: Context, count: int) -> list[str]:
    """Stored layers along depth; the input's map, bright points, only if there is room."""
    flat = [n for n in context.results.stored if len(context.results.shapes[n]) == 2]
    return spread(flat[1:] if len(flat) > count else flat, count)


def _photos(context: Context, rows: Sequence[int]) -> dict[int, str]:
    """Pictures of what the network saw, of photos that are still where they were."""
    manifest = context.results.manifest
    prepare = manifest["job"]["explainer"]["preprocessing"]
    try:
        source = open_source(manifest["source"]["place"], manifest["source"]["kind"])
    except (NaflowError, OSError):
        return {}
    found = {}
    for row in rows:
        try:
            data = source.read(int(context.single["position"][row]))
            if hashlib.sha256(data).hexdigest() != context.single["sha256"][row]:
                continue
            photo: Any = Named(data, "photo")
            found[row] = _image(_seen(open_photo(photo), prepare), "JPEG")
        except (NaflowError, OSError, IndexError):
            continue
    return found


def _seen(photo: Image.Image, prepare: Any) -> Image.Image:
    """The part of a photo that the network saw, at the thumbnail's size."""
    if isinstance(prepare, dict) and isinstance(prepare.get("resize"), int):
        return Preprocessing(round(prepare["resize"] * THUMBNAIL / prepare["crop"]), THUMBNAIL
                             ).picture(photo)  # fmt: skip
    photo.thumbnail((THUMBNAIL, THUMBNAIL))
    return photo


def _map(values: aggregate.Floats) -> str:
    """A map in colours, up to its own largest value."""
    clipped = np.nan_to_num(np.maximum(values, 0))
    scaled = clipped / max(float(clipped.max()), 1e-30)
    return _image(Image.fromarray(colourise(resize_map(scaled, (MAP, MAP)), "inferno")), "PNG")


def _image(picture: Image.Image, form: str) -> str:
    """A picture as an element that holds its file."""
    file = io.BytesIO()
    picture.save(file, form)
    data = base64.b64encode(file.getvalue()).decode()
    return (f'<img width={picture.width} height={picture.height} alt="" '
            f'src="data:image/{form.lower()};base64,{data}">')  # fmt: skip


def _breakable(name: str) -> str:
    """A layer's name that may be cut at its dots."""
    return escape(name).replace(".", ".<wbr>").replace("_", "_<wbr>")


WORDS = {
    "residual": "<b>residual</b> of the inverse",
    "norm_ratio": "<b>norm ratio</b>: norm of Z as a multiple of the activation's",
    "mean": "<b>mean</b> value of the map",
    "max": "<b>largest</b> value of the map",
    "active": "<b>active</b>: share of positions above 0",
    "spread": "<b>spread</b>: entropy of the map; 1: even, 0: one point",
}
