"""Writing a PairFlow: a sheet of one row an image, a picture a call site, flow.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from naflow_fx.errors import FlowError
from naflow_fx.view.colours import Bytes
from naflow_fx.view.photos import as_photos, thumbnail
from naflow_fx.view.record import option_words, record_of
from naflow_fx.view.save import SaveStyle, finish, heading, save_each, write_maps
from naflow_fx.view.sheet import rows_grid

if TYPE_CHECKING:
    from naflow_fx.pairs.data import PairData

IN_ROWS = 384  # longest side of what goes into the sheet, pixels
TOP_CHANNELS = 10  # embedding channels that flow.json names, the largest shares first


def save_pairs(flow: PairData, folder: Path, queries: Any, supports: Any, style: SaveStyle,
               names: Sequence[str] | None = None) -> list[Path]:  # fmt: skip
    """What `PairFlow.save` documents."""
    shots = flow.shots
    query = _photos_of("query", queries, len(flow))
    support = _photos_of("support", supports, len(flow.support))
    rows = _row_names(names, shots)

    def write(i: int, place: Path) -> None:
        photos = [query[i], *support[i * shots : (i + 1) * shots]]
        _write_pair(flow[i].cpu(), photos, rows, place, style)

    return save_each(folder, len(flow), write)


def _photos_of(side: str, images: Any, count: int) -> list[Bytes]:
    """The images of one side, RGB uint8 [H, W, 3]; one image serves all pairs."""
    if isinstance(images, Image.Image) or getattr(images, "ndim", 4) == 3:
        images = [images] * count
    try:
        return as_photos(images, count)
    except FlowError as error:
        raise FlowError(f"{side} images: {error}") from error


def _row_names(names: Sequence[str] | None, shots: int) -> list[str]:
    """Names of a pair's rows: the query, then its supports."""
    if names is None:
        return ["query", *(f"support {i + 1}" if shots > 1 else "support" for i in range(shots))]
    if len(names) != 1 + shots:
        raise FlowError(f"names: got {len(names)}; wanted {1 + shots}, the query's first.")
    return list(names)


def _write_pair(
    flow: PairData, photos: Sequence[Bytes], names: Sequence[str], folder: Path, style: SaveStyle
) -> None:
    """Write all files of one pair into the new `folder`."""
    flows = [flow.query, *flow.support]
    files, labels, rows = write_maps(flows, photos, folder, style, IN_ROWS)
    answer = {
        "kind": "pair",
        "images": len(flows),
        "input_size": list(flow.query.input_size),
        "similarity": float(flow.similarity[0]),
        "contribution": _shares(flow),
    }
    record = record_of(flows, style.info, answer, files)
    metric = f"{record['metric']} of the embeddings" if record.get("metric") else ""
    told = (str(record.get("model") or ""), metric, *option_words(record["options"]))
    small = [thumbnail(photo, IN_ROWS) for photo in photos]
    sheet = rows_grid(
        names,
        small,
        labels,
        rows,
        subtitle=" · ".join(filter(None, told)),
        **heading(style, f"similarity {record['similarity']:.3f}"),
    )
    finish(folder, record, sheet)


def _shares(flow: PairData) -> list[dict[str, Any]] | None:
    """The embedding's channels that contribute most, by absolute share."""
    if flow.contribution is None:
        return None
    row = flow.contribution[0]
    best = row.abs().topk(min(TOP_CHANNELS, len(row))).indices
    return [{"channel": int(i), "share": float(row[i])} for i in best]
