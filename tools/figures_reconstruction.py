"""docs/reconstruction.webp, Z as a picture at eight depths, and how much of it the features decide.

    python tools/figures_reconstruction.py

Both photos, the bundled model, `rows="used"` and `"all"`. It also prints by what share of its norm
Z changes where the features' own values are set to 0 in the inverse, while all that was captured
stays: masks, gates, which neurons are used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import fx

import naflow_fx as nf
from naflow_fx.models.preprocess import open_photo
from naflow_fx.options import Rows
from naflow_fx.subjects.inputs import seen
from naflow_fx.view.record import shape_text
from naflow_fx.view.sheet import rows_grid

ROOT = Path(__file__).resolve().parents[1]
MODEL, PHOTOS = "efficientnet_lite0", ("coffee", "chelsea")
ROWS: tuple[Rows, ...] = ("used", "all")
SITES = ["x", "stem_act", "blocks.0.project_bn", *(f"blocks.{i}.add" for i in (2, 4, 6, 10)),
         "blocks.15.project_bn", "head_act"]  # fmt: skip
FEATURES = "head_act_inverse"  # the node that gives the features' values to the inverse
CELL = 150


class Without(fx.Interpreter):
    """Runs a program with the features at 0 in the inverse; nothing else reads that node."""

    def run_node(self, n: fx.Node) -> Any:
        """The node's value, but for the features."""
        value = super().run_node(n)
        return torch.zeros_like(value) if n.name == FEATURES else value


def make(out: Path = ROOT / "docs" / "reconstruction.webp") -> Path:
    """Writes the figure, prints the shares."""
    card = nf.models.card(MODEL)
    opened = [open_photo(ROOT / "examples" / f"{name}.png") for name in PHOTOS]
    images = torch.stack([card.preprocessing(photo) for photo in opened])
    photos = [np.asarray(seen(card.preprocessing, photo)) for photo in opened]
    model = nf.models.build(MODEL, pretrained=True)
    flows = {}
    for rows in ROWS:
        inverse = nf.Inverse(rows=rows, precision="float32")
        explainer = nf.compile(model, images[:1], layers=SITES, keep="bpfm", inverse=inverse)
        flows[rows] = explainer(images)
        measure(explainer, flows[rows], images, rows)
    order = [(i, rows) for i in range(len(PHOTOS)) for rows in ROWS]
    sheet = rows_grid(
        [f'{PHOTOS[i]} · rows="{rows}"' for i, rows in order],
        [photos[i] for i, _ in order],
        [(name, shape_text(flows["used"].maps[name])) for name in SITES],
        [pictures(flows[rows][i]) for i, rows in order],
        title="Z as a picture",
        subtitle="flow.reconstruction() · EfficientNet-Lite0 · colours at the input, "
        "elsewhere the length over the channels",
        colormap="gray",
        legend=("1st percentile", "99th"),
        cell=CELL,
    )
    sheet.save(out, quality=85, method=6)
    return out


def pictures(flow: nf.AttentionFlow) -> list[Any]:
    """The reconstructions of one image, RGB [H, W, 3], each cell of a coarse one to be seen."""
    found = []
    for picture in flow.reconstruction().values():
        planes = picture[0].expand(3, -1, -1).movedim(0, -1)
        times = -(-CELL // planes.shape[0])
        large = planes.repeat_interleave(times, 0).repeat_interleave(times, 1)
        found.append((255 * large).round().to(torch.uint8).numpy())
    return found


def measure(explainer: Any, flow: nf.AttentionFlow, images: torch.Tensor, rows: str) -> None:
    """Prints for every site || Z - Z' || / || Z ||, the larger of the photos', Z' without."""
    names = {node.name for node in explainer.graph_module.graph.nodes}
    assert FEATURES in names, f"no {FEATURES} in the program"
    with torch.no_grad():
        without = Without(explainer.graph_module).run(images, flow.target)["bpfm"]
    for name, z in flow.bpfm.items():
        change = (z - without[name]).flatten(1).norm(dim=1) / z.flatten(1).norm(dim=1)
        print(f"{rows:5} {name:22} {float(change.max()):.1e}")


if __name__ == "__main__":
    print(make().relative_to(ROOT))
