"""For how many call sites the right map comes out: against autograd, out of place."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

import naflow_fx as nf
from benchmarks.peers import PEERS, Maps, as_found, hookable

TOLERANCE = 1e-2  # of a map's range; a wrong map is off by far more


def right_maps(net: nn.Module, x: Tensor) -> dict[str, dict[str, Tensor]]:
    """Method -> call site -> map [N, H, W], from the published formulas on autograd's gradients."""
    import shelf
    from test_methods import gradcam, hirescam, layercam

    reference = shelf.Reference(net, x)
    gradients = reference.gradients(lambda output: output.amax(1))
    formulas = {"gradcam": gradcam, "hirescam": hirescam, "layercam": layercam}
    return {
        name: {
            site: formula(reference.values[site].detach(), g)
            for site, g in gradients.items()
            if g.dim() == 4
        }
        for name, formula in formulas.items()
    }


def same(found: Tensor, wanted: Tensor) -> bool:
    """Whether two maps are one, each scaled to 0 .. 1: some libraries return them so."""
    if found.shape != wanted.shape or not bool(found.isfinite().all()):
        return False
    return bool((_scaled(found) - _scaled(wanted)).abs().max() < TOLERANCE)


def _scaled(x: Tensor) -> Tensor:
    x = x.detach().double().cpu().flatten(1)
    x = x - x.amin(1, keepdim=True)
    return x / x.amax(1, keepdim=True).clamp(min=1e-30)


def correctness(net: nn.Module, x: Tensor) -> dict[str, Any]:
    """Right call sites of all, for us and every peer."""
    wanted = right_maps(net, x)
    found: dict[str, Any] = {}
    for method in wanted:
        flow = nf.compile(net, x[:1], method=method)(x)  # type: ignore[arg-type]
        found[f"naflow_fx {method}"] = _count(dict(flow.maps), wanted[method], None)
    sites = list(flow.maps)
    modules = hookable(net, sites)
    x = x.detach().requires_grad_()  # else a module before the first parameter has no gradient
    for name, peer in PEERS.items():
        if peer.method == "none":
            continue
        try:
            with as_found(net):
                maps = peer.make(net, x, list(modules))()
            found[name] = _count(maps, wanted[peer.method], modules)
        except Exception as error:
            found[name] = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
    return {"sites": len(sites), "modules": len(modules), "right": found}


def _count(maps: Maps, wanted: Maps, modules: dict[str, list[str]] | None) -> dict[str, int]:
    right: set[str] = set()
    for name, found in maps.items():
        for site in [name] if modules is None else modules[name]:
            if site in wanted and same(found, wanted[site]):
                right.add(site)
    return {"maps": len(maps), "right": len(right)}
