"""What a page shows, as JSON: photos, models with their graphs, and a flow's maps and numbers.

Maps travel at their layer's resolution, as base64 of little-endian float16; the page colours and
enlarges them. Reconstructions travel as PNG.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from naflow_fx.errors import FlowError
from naflow_fx.flow.measures import wide
from naflow_fx.view.colours import DIVERGING, TABLES, Bytes, check_alpha, colour_table
from naflow_fx.view.html import data_uri
from naflow_fx.view.photos import as_photos, thumbnail
from naflow_fx.view.reconstruction import channels_first, reconstruct
from naflow_fx.view.record import ClassNames, along_depth, answer, finite, option_words, versions

if TYPE_CHECKING:
    from naflow_fx.flow.data import FlowData
    from naflow_fx.inspection.records import Steps

LONGEST, QUALITY = 640, 88  # of a photo in the page: pixels, JPEG
SEEN = 112  # pixels of a reconstruction, at most: means, where the page would skip some
CHANNELS, FINEST = 4, 56  # top channels of a layer, and the most cells along a side of theirs
Record = dict[str, Any]


class HasSteps(Protocol):
    """What can be inspected: an `Explainer`, or its inspection."""

    def inspect(self) -> Steps:
        """Its program step by step."""


@dataclass(frozen=True)
class ReportEntry:
    """One model's flow of one or more photos, for `save_report`.

    Attributes:
        flow: of N images; or flows in order, N images in all (one after the other takes less
            memory).
        images: the N photos, as `AttentionFlow.overlay` takes them: what the network saw; None:
            those that flows of a `Subject` know.
        model: what to call the model.
        photos: what to call the photos; entries of the same name stand side by side.
        graph: the explainer, or its `inspect()`: the page then has the inverse graph.
        class_names: class index -> words; None: those that the flows know.
    """

    flow: FlowData | Sequence[FlowData]
    images: Any = None
    model: str = "model"
    photos: Sequence[str] = ()
    graph: HasSteps | None = None
    class_names: ClassNames = None


def make_report(entries: Iterable[ReportEntry], title: str, colormap: str, alpha: float) -> Record:
    """All that a page shows.

    Raises:
        FlowError: no entries, images that don't fit their flow, maps that are not finite or 2-d,
            an unknown colour map.
    """
    given = list(entries)
    if not given:
        raise FlowError("A report needs at least one entry; save_report(path, [ReportEntry(...)]).")
    colour_table(colormap)
    check_alpha(alpha)
    shown = [one for index, entry in enumerate(given) for one in _entries(entry, index)]
    names = list(dict.fromkeys(photo["name"] for photo, _ in shown))
    shown.sort(key=lambda pair: names.index(pair[0]["name"]))  # a photo's models side by side
    made = {"naflow-fx": "", **versions()}  # the first, whatever its place there
    return {
        "title": title,
        "made_by": "Made by " + ", ".join(f"{k} {v}".strip() for k, v in made.items()),
        "colormap": colormap,
        "alpha": alpha,
        "colormaps": {name: _base64(table) for name, table in TABLES.items()},
        "diverging": _base64(DIVERGING),
        "models": [{"name": entry.model, "graph": _graph(entry.graph)} for entry in given],
        "photos": [photo for photo, _ in shown],
        "entries": [{**record, "photo": i} for i, (_, record) in enumerate(shown)],
    }


def _entries(entry: ReportEntry, model: int) -> list[tuple[Record, Record]]:
    """The photo and the record of every image of an entry."""
    flows = entry.flow if isinstance(entry.flow, (list, tuple)) else [entry.flow]
    singles = [one for flow in flows for one in flow]
    count = len(singles)
    names = list(entry.photos) or [f"photo {i + 1}" if count > 1 else "photo" for i in range(count)]
    if len(names) != count:
        raise FlowError(f"{len(names)} names for {count} images; give one an image, or none.")
    known = [photo for one in singles for photo in one.about.photos] or None
    photos = as_photos(known if entry.images is None else entry.images, count)
    return [
        (_photo(name, photo), _entry(one.detach().cpu(), model, entry.class_names))
        for name, photo, one in zip(names, photos, singles, strict=True)
    ]


def _photo(name: str, pixels: Bytes) -> Record:
    """A photo as a data URL, no larger than a page needs."""
    picture = thumbnail(pixels, LONGEST)
    source = data_uri(picture, "jpeg", quality=QUALITY)
    return {"name": name, "source": source, "size": [picture.height, picture.width]}


def _entry(flow: FlowData, model: int, class_names: ClassNames) -> Record:
    """One image's record (a flow with N = 1)."""
    found = answer(flow, class_names)
    target, numbers, planes = found["target"], along_depth(flow), flow.drawable("map")
    what = "a function of the output" if target is None else f"class {target}"
    pictures = reconstruct(flow) if flow.bpfm else {}
    return {
        "model": model,
        "explained": found["target_name"] or what,
        "score": found["score"],
        "top": [
            {"name": one["name"] or f"class {one['class']}", "probability": one["probability"]}
            for one in found["top5"]
            if one["probability"] is not None
        ],
        "options": " · ".join(option_words(flow.options)),
        "layers": [
            {
                **_layer(flow, name, planes[name][0]),
                **_held(pictures.get(name)),
                **{measure: of.get(name, [None])[0] for measure, of in numbers.items()},
            }
            for name in flow.maps
        ],
    }


def _layer(flow: FlowData, name: str, plane: NDArray[Any]) -> Record:
    """One call site: its map, and the channels that matter where Z and Lambda were kept."""
    found: Record = {
        "name": name,
        "block": name.rpartition(".")[0],
        "shape": list(plane.shape),
        "max": finite(flow.maps[name].max()),
        "map": _base64(plane.astype("<f2")),
    }
    z, importance = flow.bpfm.get(name), flow.importance.get(name)
    if z is not None and importance is not None and z.ndim == 4:
        evidence = _scaled(importance) * _scaled(z)
        found["channels"] = _top_channels(channels_first(evidence, flow.maps[name])[0])
    return found


def _scaled(values: Tensor) -> Tensor:
    """A multiple of the values in float32, the largest about 1: no product or quotient is lost.

    The factor is a power of two, which leaves the digits as they are.
    """
    _, exponent = torch.frexp(wide(values).abs().amax())
    return torch.ldexp(wide(values), -exponent).float()


def _held(picture: Tensor | None) -> Record:
    """A reconstruction, [1, 1 or 3, H, W] in [0, 1], no larger than a page needs.

    Nothing where nothing was kept, or where the site has no space.
    """
    if picture is None or picture.ndim != 4:
        return {}
    pixels = (255 * picture[0].float()).round().to(torch.uint8).movedim(0, -1).numpy()
    shown = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
    shown.thumbnail((SEEN, SEEN), Image.Resampling.BOX)
    return {"held": data_uri(shown, "png", optimize=True)}


def _top_channels(evidence: Tensor) -> list[Record]:
    """The channels of the largest sums of Lambda Z, [C, H, W], and their share of the positive."""
    sums = evidence.sum((1, 2))
    whole = float(sums.clamp_min(0).sum())
    values, channels = (found.tolist() for found in sums.topk(min(CHANNELS, len(sums))))
    return [
        {"index": channel, "share": value / whole, **_cells(evidence[channel])}
        for value, channel in zip(values, channels, strict=True)
        if value > 0
    ]


def _cells(evidence: Tensor) -> Record:
    """What is positive of a channel, [H, W], in at most FINEST cells along a side, as bytes.

    A cell has the average; the largest is 255.
    """
    height, width = (min(side, FINEST) for side in evidence.shape)
    coarse = F.adaptive_avg_pool2d(_scaled(evidence.clamp_min(0))[None], (height, width))[0]
    shares = (coarse * (255 / float(coarse.max()))).round().to(torch.uint8)
    return {"shape": [height, width], "map": _base64(shares.numpy())}


def _base64(values: NDArray[Any]) -> str:
    return base64.b64encode(values.tobytes()).decode()


def _graph(source: HasSteps | None) -> Record | None:
    """Blocks, nodes and edges, without what is empty; the page takes that for missing."""
    if source is None:
        return None
    made, kept = source.inspect().to_dict(), ("site", "block", "parent")
    return {
        part: [
            {k: v for k, v in item.items() if k in kept or v not in (None, "", [], ())}
            for item in made[part]
        ]
        for part in ("blocks", "nodes", "edges")
    }
