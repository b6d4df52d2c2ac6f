"""How near the default maps are to the converged ones, on the bundled model and photos.

    python tools/accuracy.py [--steps 8 10 11 12] [--reduction sum] [--weight none]
                             [--precision auto]

For the default steps and each number of steps: the cosine between the float32 maps and the
float64 maps converged at damping 0.01 with the same other options, over all call sites and photos:
mean, fifth percentile, smallest.  Two maps that are both zero agree (cosine 1); a zero and a
non-zero one do not (0).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

import naflow_fx as nf
from naflow_fx import models
from naflow_fx.models.preprocess import open_photo

MODEL = "efficientnet_lite0"
PHOTOS = Path(__file__).resolve().parents[1] / "examples"
CONVERGED_STEPS = 60


def cosine(a: Tensor, b: Tensor) -> float:
    """The cosine of two maps; 1 if both are zero."""
    a, b = a.double().flatten(), b.double().flatten()
    if not a.any() and not b.any():
        return 1.0
    return float((a @ b) / (a.norm() * b.norm()).clamp(min=1e-300))


def maps(
    x: Tensor, steps: int | None, reduction: str, weight: str, precision: str = "float32"
) -> dict[str, Tensor]:
    """Maps of every call site of the bundled model, in the dtype of x, damping 0.01."""
    model = models.build(MODEL, pretrained=True).to(x.dtype)
    inverse = nf.Inverse(damping=0.01, steps=steps, weight=weight, precision=precision)
    return dict(nf.compile(model, x[:1], inverse=inverse, reduction=reduction)(x).maps)


def main() -> None:
    """Prints one row per number of steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, nargs="+", default=[8, 10, 11, 12])
    parser.add_argument("--reduction", default="sum", choices=("sum", "channelwise", "attended"))
    parser.add_argument("--weight", default="none", choices=("none", "importance"))
    parser.add_argument("--precision", default="auto", choices=("auto", "float32", "bfloat16"))
    given = parser.parse_args()
    preprocess = models.card(MODEL).preprocessing
    photos = sorted(PHOTOS.glob("*.png"))
    x = torch.stack([preprocess(open_photo(path)) for path in photos])
    wanted = maps(x.double(), CONVERGED_STEPS, given.reduction, given.weight)
    print(f"{MODEL}, {len(photos)} photos, {len(wanted)} call sites, {given}")
    print("| steps | mean | fifth percentile | smallest |\n|---|---|---|---|")
    for steps in (None, *given.steps):
        found = maps(x, steps, given.reduction, given.weight, given.precision)
        cosines = torch.tensor(
            [
                cosine(a, b)
                for name in wanted
                for a, b in zip(found[name], wanted[name], strict=True)
            ]
        )
        low = torch.quantile(cosines, 0.05)
        name, mean = steps or "default", cosines.mean()
        print(f"| {name} | {mean:.4f} | {low:.4f} | {cosines.min():.4f} |", flush=True)


if __name__ == "__main__":
    main()
