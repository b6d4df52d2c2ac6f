"""The cosine between a setting's maps and the converged ones, as tools/accuracy.py has it."""

from __future__ import annotations

import copy
import zlib

import torch
from torch import Tensor, nn

import naflow_fx as nf
from benchmarks.subjects import ROOT

CACHE = ROOT / "build" / "benchmarks"
CONVERGED_STEPS = 60
DAMPING = 0.01


def converged(name: str, net: nn.Module, x: Tensor) -> dict[str, dict[str, Tensor]]:
    """Reduction -> call site -> float64 map, 60 steps at damping 0.01; kept in build/benchmarks."""
    path = CACHE / f"{name}-{_key(net, x)}.pt"
    if path.exists():
        kept: dict[str, dict[str, Tensor]] = torch.load(path)
        return kept
    wide = copy.deepcopy(net).double()
    inverse = nf.Inverse(damping=DAMPING, steps=CONVERGED_STEPS)
    keep = ("bpfm", "importance")
    explainer = nf.compile(wide, x[:1].double(), inverse=inverse, keep=keep)
    found: dict[str, dict[str, Tensor]] = {"sum": {}, "channelwise": {}}
    for image in x.double().split(1):  # one at a time: every Z is kept
        flow = explainer(image)
        for site, z in flow.bpfm.items():
            product = flow.importance[site] * z
            for reduction, made in (
                ("sum", product.sum(1).relu()),
                ("channelwise", product.relu().sum(1)),
            ):
                before = found[reduction].get(site, made[:0].cpu())
                found[reduction][site] = torch.cat([before, made.cpu()])
    CACHE.mkdir(parents=True, exist_ok=True)
    torch.save(found, path)
    return found


def _key(net: nn.Module, x: Tensor) -> str:
    """Of the weights, the photos, and the files that say what the converged maps are."""
    value = zlib.crc32(x.cpu().numpy().tobytes())
    for tensor in net.state_dict().values():
        value = zlib.crc32(tensor.cpu().contiguous().numpy().tobytes(), value)
    for folder in (ROOT / "naflow_fx" / "rules", ROOT / "passes"):
        for file in sorted(folder.glob("*.py")):
            value = zlib.crc32(file.read_bytes(), value)
    return f"{value:08x}"


def agreement(maps: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, float]:
    """Mean, fifth percentile and smallest cosine over call sites and photos."""
    cosines = torch.tensor(
        [
            cosine(a, b)
            for name, target in wanted.items()
            for a, b in zip(maps[name].cpu(), target, strict=True)
        ]
    )
    low = torch.quantile(cosines, 0.05)
    return {"mean": float(cosines.mean()), "low": float(low), "smallest": float(cosines.min())}


def cosine(a: Tensor, b: Tensor) -> float:
    """The cosine of two maps; 1 if both are zero."""
    a, b = a.double().flatten(), b.double().flatten()
    if not a.any() and not b.any():
        return 1.0
    return float((a @ b) / (a.norm() * b.norm()).clamp(min=1e-300))
