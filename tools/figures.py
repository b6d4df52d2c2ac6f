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
from naflow_fx.view.record import shape_text
from naflow_fx.view.rows import rows_grid
from naflow_fx.view.sheet import NAME

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "examples"))
import few_shot  # noqa: E402  the example that trains the two few-shot encoders

BUNDLED = "efficientnet_lite0"
CELL = 152  # of a picture, pixels
LEVELS = 32  # of a colour channel in a file
EPISODES = 300  # that the few-shot encoders are trained for
GALLERY = f"{few_shot.TRAINED} {few_shot.NOVEL}"
RANDOM = "**Random weights** (seed 0; batch norm's statistics are those of 20 photos): "
LITE_LAYERS = ["stem_act", *(f"blocks.{i}.project_bn" for i in (0, 2, 4, 6, 10, 14)), "head_act"]
RESNET18_LAYERS = ["relu", *(f"layer{i}.{j}.relu_1" for i in (1, 2, 3, 4) for j in (0, 1))]
RESNET50_LAYERS = ["relu"] + [
    f"layer{i}.{j}.relu_2" for i, last in enumerate((2, 3, 5, 2), 1) for j in (0, last)
]
CBAM_LAYERS = [
    f"layer{i}.{last}.{part}"
    for i, last in enumerate((2, 3, 5, 2), 1)
    for part in ("bn3", "cbam.ChannelGate.mul", "cbam.SpatialGate.sigmoid",
                 "cbam.SpatialGate.mul", "relu_2")
]  # fmt: skip
BAM_LAYERS = [
    name
    for i, last in ((1, 2), (2, 3), (3, 5))
    for name in (f"layer{i}.{last}.relu_2", f"bam{i}.channel_att.expand_as",
                 f"bam{i}.spatial_att.expand_as", f"bam{i}.sigmoid", f"bam{i}.mul_1")
] + ["layer4.0.relu_2", "layer4.2.relu_2"]  # fmt: skip
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
        "What figures 4 to 7 show, with weights that can be had: ImageNet's. " + CLASSES,
        classify, (BUNDLED, LITE_LAYERS, "astronaut rocket motorcycle_left coins"),
    ),
    Figure(
        4, "04-resnet18", "ResNet18, random weights", RANDOM + NOISE + CLASSES,
        classify, ("resnet18", RESNET18_LAYERS, "coffee chelsea rocket"),
    ),
    Figure(
        5, "05-resnet50", "ResNet50, random weights", RANDOM + NOISE + CLASSES,
        classify, ("resnet50", RESNET50_LAYERS, "coffee chelsea rocket"),
    ),
    Figure(
        6, "06-resnet50-cbam", "ResNet50 + CBAM, random weights",
        RANDOM + NOISE + "The gate layers of each stage's last block have their own maps: before "
        "the gates (`bn3`), after the channel gate, the spatial gate itself (a control branch, so "
        "its Z is the activation), after it, and the block's end. " + CLASSES,
        classify, ("resnet50_cbam", CBAM_LAYERS, "coffee chelsea"), 10,
    ),
    Figure(
        7, "07-resnet50-bam", "ResNet50 + BAM, random weights",
        RANDOM + NOISE + "Of each BAM: the stage before it, its channel and its spatial branch, "
        "their sigmoid, and the gated map. " + CLASSES,
        classify, ("resnet50_bam", BAM_LAYERS, "coffee chelsea"), 10,
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
stand in where there are some: the bundled EfficientNet-Lite0's, and those of the two few-shot
encoders, which `examples/few_shot.py` trains in minutes. Every column is a call site, every map is
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
