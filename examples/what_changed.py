"""What does an attention module change inside a network?  In numbers, epoch by epoch.

    python examples/what_changed.py [--epochs 6] [--steps 20] [--photos 60] [--out what_changed.png]

Four small ResNets learn the drawn pictures of naflow_fx.evaluation.synthetic, in which the mask of
the deciding shape is known: a plain one, one with CBAM in every block, one with BAM between the
stages (both as naflow_fx.models has them), and a plain one from another seed, which tells how much
of a difference is chance.  Each explainer is made once and follows the weights.  Printed are, of
unseen pictures, the statistics of docs/statistics.md at the ends of the stages, with 95 %
intervals, and how far each network's maps agree with the plain one's; the figure shows the same.
Needs naflow-fx[viz]; some minutes on one core.
"""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import naflow_fx as nf
from naflow_fx.evaluation.synthetic import PATTERNS, Block, draw
from naflow_fx.models.resnet_attention import Bam, Cbam

STAGES, WIDTH = ["stem", "layer1", "layer2", "layer3"], 16
KINDS = {"plain": ("", 0), "CBAM": ("cbam", 0), "BAM": ("bam", 0), "plain, seed 1": ("", 1)}
TITLES = {
    "inside": "energy on the shape",
    "scatter": "scatter",
    "agreement": "agreement with\nthe last map",
    "": "energy on the shape\nat layer3",
}
COLOURS = ("#444444", "#d55e00", "#0072b2", "#b0b0b0")


class GatedBlock(Block):
    """A residual block with a gate at the end of its branch, before the sum."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.gate = Cbam(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] -> [N, outputs, H / 2, W / 2]."""
        inner = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.gate(self.bn2(self.conv2(inner))) + self.down(x))


def network(kind: str, seed: int) -> nn.Module:
    """Stem, three stages, mean, linear: [N, 3, 48, 48] -> [N, 6].  kind: "", "cbam" or "bam"."""
    torch.manual_seed(seed)
    w, block = WIDTH, GatedBlock if kind == "cbam" else Block
    parts = OrderedDict(stem=nn.Sequential(nn.Conv2d(3, w, 3, padding=1), nn.BatchNorm2d(w),
                                           nn.ReLU()))  # fmt: skip
    for i in (1, 2, 3):
        gates = [Bam((i + 1) * w)] if kind == "bam" and i < 3 else []  # between the stages
        parts[f"layer{i}"] = nn.Sequential(block(i * w, (i + 1) * w), *gates)
    parts["head"] = nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * w, len(PATTERNS))
    )
    return nn.Sequential(parts).eval()


@dataclass
class Course:
    """A network in training, and what is known of it after each epoch."""

    model: nn.Module
    explainer: nf.Explainer
    optimiser: torch.optim.Optimizer
    accuracy: list[float] = field(default_factory=list)
    tables: list[nf.Statistics] = field(default_factory=list)
    flow: nf.AttentionFlow | None = None

    @property
    def on_it(self) -> float:
        """How much of the last map lies on the shapes, mean over pictures."""
        return self.tables[-1].estimates("inside")[-1].mean

    def train(self, seeds: Sequence[int]) -> None:
        """One batch of new pictures for each seed."""
        self.model.train()
        for seed in seeds:
            images, target, _ = draw(32, seed, faded=True)
            self.optimiser.zero_grad()
            F.cross_entropy(self.model(images), target).backward()
            self.optimiser.step()
        self.model.eval()

    def look(self, images: Tensor, target: Tensor, mask: Tensor) -> None:
        """Explains the pictures with the weights as they are."""
        self.flow = self.explainer(images, target)
        self.tables.append(self.flow.statistics(mask=mask))
        self.accuracy.append(float((self.flow.output.argmax(1) == target).float().mean()))


def course(kind: str, seed: int, example: Tensor) -> Course:
    """A network before its training."""
    model = network(kind, seed)
    explainer = nf.compile(model, example, layers=STAGES)
    return Course(model, explainer, torch.optim.Adam(model.parameters(), lr=3e-3))


def report(courses: dict[str, Course]) -> str:
    """The numbers after the last epoch."""
    lines = []
    plain = courses["plain"]
    for name, one in courses.items():
        lines += [f"{name}: {one.accuracy[-1]:.0%} right", str(one.tables[-1])]
        if one is not plain:
            lines += ["agreement with the plain network's maps:",
                      str(nf.agreement(plain.flow, one.flow))]  # fmt: skip
        lines.append("")
    return "\n".join(lines)


def draw_figure(courses: dict[str, Course], images: Tensor, path: Path) -> None:
    """Maps of the first picture, a row a network; below, curves along depth and over epochs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 9.4), layout="constrained", dpi=110)
    upper, lower = figure.subfigures(2, 1, height_ratios=(2.0, 1))
    axes = upper.subplots(len(courses), len(STAGES) + 1)
    photo = images[:1] - images[:1].amin()
    for row, (name, one) in zip(axes, courses.items(), strict=True):
        overlays = one.flow[0].overlay(images[:1], alpha=0.6)
        shown = [
            (photo[0].movedim(0, -1) / photo.amax()).numpy(),
            *(o[0] for o in overlays.values()),
        ]
        for place, title, picture in zip(row, ["picture", *STAGES], shown, strict=True):
            place.imshow(picture)
            place.set(xticks=[], yticks=[])
            if one is courses["plain"]:
                place.set_title(title, fontsize=10)
        row[0].set_ylabel(f"{name}\n{one.accuracy[-1]:.0%} right", fontsize=10)
    for place, measure in zip(lower.subplots(1, 4), TITLES, strict=True):
        draw_curves(place, courses, measure)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def draw_curves(place, courses: dict[str, Course], measure: str) -> None:  # noqa: ANN001
    """A measure along depth with its intervals; "": energy inside at layer3 over epochs."""
    for (name, one), colour in zip(courses.items(), COLOURS, strict=True):
        found = (one.tables[-1].estimates(measure) if measure
                 else [table.estimates("inside")[-1] for table in one.tables])  # fmt: skip
        at = range(len(found))
        place.plot(at, [e.mean for e in found], color=colour, label=name, linewidth=1.5)
        place.fill_between(at, [e.low for e in found], [e.high for e in found], color=colour,
                           alpha=0.15, linewidth=0)  # fmt: skip
    place.set_title(TITLES[measure], fontsize=10)
    if measure:
        place.set_xticks(range(len(STAGES)), STAGES)
    else:
        place.set_xlabel("epochs", fontsize=9)
        place.legend(fontsize=7, frameon=False)
    place.tick_params(labelsize=8)
    place.spines[["top", "right"]].set_visible(False)


def main(argv: Sequence[str] | None = None) -> None:
    """Trains, explains, prints the numbers, writes the figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--steps", type=int, default=20, help="batches an epoch")
    parser.add_argument("--photos", type=int, default=60, help="unseen pictures that are explained")
    parser.add_argument("--out", type=Path, default=Path("what_changed.png"))
    options = parser.parse_args(argv)

    images, target, mask = draw(options.photos, 1)
    courses = {name: course(*kind, images[:1]) for name, kind in KINDS.items()}
    for epoch in range(options.epochs + 1):
        for one in courses.values():
            if epoch:
                first = 1000 + (epoch - 1) * options.steps
                one.train(range(first, first + options.steps))
            one.look(images, target, mask)
        told = (f"{name} {one.accuracy[-1]:.0%} right, {one.on_it:.0%} on it"
                for name, one in courses.items())  # fmt: skip
        print(f"epoch {epoch}: {'; '.join(told)}", flush=True)
    print(report(courses))
    draw_figure(courses, images, options.out)
    print(options.out)


if __name__ == "__main__":
    main()
