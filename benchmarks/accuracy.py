"""How near the maps of few steps are to converged ones, and Z to the activation."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

import naflow_fx as nf
from benchmarks.subjects import SETTINGS
from naflow_fx.evaluation.fidelity import activations, fidelity

CONVERGED_STEPS = 40  # at damping 0.1 the error shrinks by more than 0.54 a step
DEPTHS = 5
Found = dict[str, Any]


def accuracy(net: nn.Module, x: Tensor) -> dict[str, Found]:
    """By setting: `agreement` with float64 maps converged with the same options, `depths` of Z."""
    found = {}
    for rows in ("used", "all"):
        settings = [s for s in SETTINGS if s.method == "naflow" and s.rows == rows]
        wanted = converged(net, x, rows)
        for setting in settings:
            explainer = setting.compile(net, x, keep=("bpfm", "used"))
            flow = explainer(x)
            found[setting.name] = agreement(dict(flow.maps), wanted[setting.reduction])
            found[setting.name]["fidelity"] = depths(fidelity(flow, activations(explainer, x)))
    return found


def converged(net: nn.Module, x: Tensor, rows: str) -> dict[str, dict[str, Tensor]]:
    """Reduction -> call site -> float64 map, of one damping and many steps."""
    wide = copy.deepcopy(net).double()
    inverse = nf.Inverse(steps=CONVERGED_STEPS, rows=rows)  # type: ignore[arg-type]
    explainer = nf.compile(wide, x[:1].double(), inverse=inverse, keep=("bpfm", "importance"))
    parts: dict[str, dict[str, list[Tensor]]] = {"sum": {}, "channelwise": {}}
    for image in x.double()[:, None]:  # one at a time: every Z is kept
        flow = explainer(image)
        for site, z in flow.bpfm.items():
            product = flow.importance[site] * z
            parts["sum"].setdefault(site, []).append(product.sum(1).relu().cpu())
            parts["channelwise"].setdefault(site, []).append(product.relu().sum(1).cpu())
    return {kind: {site: torch.cat(maps) for site, maps in sites.items()}
            for kind, sites in parts.items()}  # fmt: skip


def depths(cosines: dict[str, Tensor]) -> list[float]:
    """Means over call sites and images of each fifth of the depth, first to last."""
    means = torch.stack([c.mean() for c in cosines.values()])
    return [float(part.nanmean()) for part in means.tensor_split(DEPTHS)]


def agreement(maps: dict[str, Tensor], wanted: dict[str, Tensor]) -> Found:
    """Mean, fifth percentile and smallest cosine over call sites and photos."""
    cosines = torch.tensor(
        [
            cosine(a, b)
            for name, target in wanted.items()
            for a, b in zip(maps[name].cpu(), target, strict=True)
        ]
    )
    low, zeros = torch.quantile(cosines, 0.05), int((cosines == 0).sum())
    return {"mean": float(cosines.mean()), "low": float(low), "smallest": float(cosines.min()),
            "one of two is zero": zeros}  # fmt: skip


def cosine(a: Tensor, b: Tensor) -> float:
    """The cosine of two maps; 1 if both are zero."""
    a, b = a.double().flatten(), b.double().flatten()
    if not a.any() and not b.any():
        return 1.0
    return float((a @ b) / (a.norm() * b.norm()).clamp(min=1e-300))
