"""Writing a PairFlow: a sheet of one row an image, a picture a call site, flow.json."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from naflow_fx.errors import FlowError
from naflow_fx.selection import choose
from naflow_fx.view.colours import Bytes, show_on_image, write_png
from naflow_fx.view.photos import as_photos
from naflow_fx.view.record import (
    GRID,
    details,
    make_record,
    picture_names,
    shape_text,
    versions,
)
from naflow_fx.view.rows import rows_grid
from naflow_fx.view.save import LEGENDS, Style, finish, save_each, thumbnail
from naflow_fx.view.sheet import Label

if TYPE_CHECKING:
    from naflow_fx.flow.data import FlowData
    from naflow_fx.pairs.data import PairData

GUTTER = 8  # pixels between the images of one picture
THUMBNAIL = 384  # longest side of what goes into the sheet, pixels
TOP_CHANNELS = 10  # embedding channels that flow.json names, the largest shares first
MEASURES = ("max", "residual", "norm_ratio", "sigma_max")


def save_pairs(flow: PairData, folder: Path, queries: Any, supports: Any, style: Style,
               names: Sequence[str] | None = None) -> list[Path]:  # fmt: skip
    """What `PairFlow.save` documents."""
    shots = len(flow.support) // max(len(flow), 1)
    photos = _photos(queries, len(flow), "query"), _photos(supports, len(flow.support), "support")
    rows = _names(names, shots)

    def write(i: int, place: Path) -> None:
        pictures = [photos[0][i], *photos[1][i * shots : (i + 1) * shots]]
        _write_pair(flow[i].cpu(), pictures, rows, place, style)

    return save_each(folder, len(flow), write)


def _photos(images: Any, count: int, name: str) -> list[Bytes]:
    """The images of one side, RGB uint8 [H, W, 3]; one image serves all pairs."""
    if isinstance(images, Image.Image) or getattr(images, "ndim", 4) == 3:
        images = [images] * count
    try:
        return as_photos(images, count)
    except FlowError as error:
        raise FlowError(f"{name} images: {error}") from error


def _names(names: Sequence[str] | None, shots: int) -> list[str]:
    """Names of a pair's rows: the query, then its supports."""
    if names is None:
        return ["query", *(f"support {i + 1}" if shots > 1 else "support" for i in range(shots))]
    if len(names) != 1 + shots:
        raise FlowError(f"names: got {len(names)}; wanted {1 + shots}, the query's first.")
    return list(names)


def _write_pair(
    flow: PairData, photos: Sequence[Bytes], names: Sequence[str], folder: Path, style: Style
) -> None:
    """Write all files of one pair into the new `folder`."""
    flows = [flow.query, *flow.support]
    files = picture_names(choose(list(flow.query.maps), style.layers))
    labels: list[Label] = []
    rows: list[list[Bytes]] = [[] for _ in flows]
    for site, pictures in _pictures(flows, files, photos, style):
        write_png(_beside(pictures), folder / files[site])
        for row, picture in zip(rows, pictures, strict=True):
            row.append(np.asarray(thumbnail(picture, THUMBNAIL)))
        labels.append((site, shape_text(flow.query.maps[site]) + _empty(flows, site)))
        if style.on_picture is not None:
            style.on_picture(site)
    record = _record(flow, flows, files, style.info)
    sheet = rows_grid(
        names, [thumbnail(p, THUMBNAIL) for p in photos], labels, rows,
        title=" · ".join(part for part in (style.title, headline(record)) if part),
        subtitle=subtitle(record), colormap=style.colormap, legend=("0", LEGENDS[style.scale]),
    )  # fmt: skip
    finish(folder, record, sheet)


def _pictures(
    flows: Sequence[FlowData], sites: Iterable[str], photos: Sequence[Bytes], style: Style
) -> Iterator[tuple[str, list[Bytes]]]:
    """Call site, and the picture of each image there, RGB uint8 [H, W, 3]."""
    maps = [flow.detach().drawable(style.scale) for flow in flows]
    for site in sites:
        yield (
            site,
            [
                show_on_image(photo, each[site][0], alpha=style.alpha, colormap=style.colormap)
                for photo, each in zip(photos, maps, strict=True)
            ],
        )


def _beside(pictures: Sequence[Bytes]) -> Image.Image:
    """The pictures side by side at the first one's height, a white gutter between them."""
    height = pictures[0].shape[0]
    scaled = [
        Image.fromarray(p).resize((max(1, round(p.shape[1] * height / p.shape[0])), height))
        for p in pictures
    ]
    width = sum(p.width + GUTTER for p in scaled) - GUTTER
    sheet, left = Image.new("RGB", (width, height), "white"), 0
    for picture in scaled:
        sheet.paste(picture, (left, 0))
        left += picture.width + GUTTER
    return sheet


def _empty(flows: Sequence[FlowData], site: str) -> str:
    """A word where all maps of a call site are zero."""
    return "" if any(flow.maps[site].any() for flow in flows) else ", all zero"


def _record(
    flow: PairData,
    flows: Sequence[FlowData],
    files: Mapping[str, str],
    info: Mapping[str, Any],
) -> dict[str, Any]:
    """The contents of a pair's flow.json; per layer and image, the query's numbers first."""
    made = [make_record(one, None, {}, files) for one in flows]
    layers = [
        {
            "name": each[0]["name"],
            "shape": each[0]["shape"],
            **{name: [one[name] for one in each] for name in MEASURES},
            "file": each[0]["file"],
        }
        for each in zip(*(record["layers"] for record in made), strict=True)
    ]
    return {
        "format": made[0]["format"],
        **info,
        "kind": "pair",
        "images": len(flows),
        "input_size": made[0]["input_size"],
        "similarity": float(flow.similarity[0]),
        "contribution": _shares(flow),
        "options": made[0]["options"],
        "layers": layers,
        "files": [GRID, *files.values()],
        "versions": versions(),
    }


def _shares(flow: PairData) -> list[dict[str, Any]] | None:
    """The embedding's channels that contribute most, by absolute share."""
    if flow.contribution is None:
        return None
    row = flow.contribution[0]
    best = row.abs().topk(min(TOP_CHANNELS, len(row))).indices
    return [{"channel": int(i), "share": float(row[i])} for i in best]


def headline(record: Mapping[str, Any]) -> str:
    """The similarity in words."""
    return f"similarity {record['similarity']:.3f}"


def subtitle(record: Mapping[str, Any]) -> str:
    """Model, metric and the options that matter, separated by " · "."""
    plain = details({**record, "target": None, "target_name": None, "score": None})
    kept = [part for part in plain.split(" · ") if not part.startswith("explained: ")]
    if record.get("metric"):
        kept.insert(1 if record.get("model") else 0, f"{record['metric']} of the embeddings")
    return " · ".join(kept)
