"""Maps that `search_maps.py` tries: each from Lambda, the activation x and Z of one call site."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, relu

import naflow_fx as nf
from naflow_fx import attend

Reduce = Callable[[Tensor, Tensor, Tensor], Tensor]
Gate = Callable[[Tensor], Tensor]
PEERS = ("layercam", "hirescam", "channelwise")
STEPS = 5


def _scaled(importance: Tensor, x: Tensor, z: Tensor) -> Tensor:
    """Lambda x, each channel rescaled to the sum of its Lambda Z."""
    a, b = relu(importance * x), relu(importance * z)
    size = a.flatten(2).sum(2).clamp_min(1e-30)[..., None, None]
    return (a * b.flatten(2).sum(2)[..., None, None] / size).sum(1)


def _net(importance: Tensor, x: Tensor, z: Tensor) -> Tensor:
    """Of neurons of the same sign in x and Z: what speaks for the class less half of the rest."""
    part = importance * x * (x * z > 0)
    return relu(relu(part).sum(1) - 0.5 * relu(-part).sum(1))


REDUCE: dict[str, tuple[str, Reduce]] = {
    "layercam": ("max(sum max(L, 0) x, 0)", lambda g, x, z: relu((relu(g) * x).sum(1))),
    "hirescam": ("max(sum L x, 0)", lambda g, x, z: relu((g * x).sum(1))),
    "channelwise": ("sum max(L x, 0)", lambda g, x, z: relu(g * x).sum(1)),
    "eq2": ("max(sum L Z, 0)", lambda g, x, z: relu((g * z).sum(1))),
    "z": ("sum max(L Z, 0)", lambda g, x, z: relu(g * z).sum(1)),
    "agree": ("sum max(L x, 0) [x Z > 0]", lambda g, x, z: (relu(g * x) * (x * z > 0)).sum(1)),
    "min": ("sum min(max(L x, 0), max(L Z, 0))",
            lambda g, x, z: torch.minimum(relu(g * x), relu(g * z)).sum(1)),
    "geometric": ("sum sqrt(max(L x, 0) max(L Z, 0))",
                  lambda g, x, z: (relu(g * x) * relu(g * z)).sqrt().sum(1)),
    "two maps": ("sqrt(sum max(L x, 0) * sum max(L Z, 0))",
                 lambda g, x, z: (relu(g * x).sum(1) * relu(g * z).sum(1)).sqrt()),
    "scaled": ("sum max(L x, 0), each channel with the sum of its max(L Z, 0)", _scaled),
    "net": ("agree, less half of what speaks against the class", _net),
}  # fmt: skip

GATES: dict[str, tuple[str, Gate]] = {
    "": ("none", torch.ones_like),
    "linear": ("F", lambda f: f),
    "clipped": ("min(F / mean F, 1)^4", attend.share),
}

CASCADES = {
    "rising": "damping from 0.01 at the last step to 0.1 at the first layer",
    "falling": "damping from 0.1 at the last step to 0.01 at the first layer",
    "positive": "after each step neurons with L Z <= 0 are abandoned; the next step reads the rest",
    "large": "so, where L Z is below a tenth of the mean |L Z|",
    "tail": "no cascade: one least squares of all layers that follow, 10 steps",
}


@dataclass(frozen=True)
class Attempt:
    """One map: how Z is made, reduced over channels, smoothed, and gated by the last map F."""

    reduce: str
    weight: str = "none"
    prior: str = "zero"
    damping: float = 0.01
    smooth: bool = False
    gate: str = ""
    cascade: str = ""

    @property
    def name(self) -> str:
        """Short, for tables."""
        z = "" if self.reduce in PEERS else f", weight {self.weight}"
        if (self.prior, self.damping) != ("zero", 0.01):
            z += f", prior {self.prior}, damping {self.damping}"
        z += f", cascade {self.cascade}" if self.cascade else ""
        gate = f", gate {self.gate}" if self.gate else ""
        return f"{self.reduce}{z}{', smooth' if self.smooth else ''}{gate}"

    @property
    def inverse(self) -> nf.Inverse:
        """What to compile."""
        return nf.Inverse(self.damping, STEPS, prior=self.prior, weight=self.weight)  # type: ignore[arg-type]

    def __call__(self, importance: Tensor, x: Tensor, z: Tensor, last: Tensor) -> Tensor:
        """The map [N, H, W]; `last`: the feature node's."""
        found = REDUCE[self.reduce][1](importance, x, z)
        found = attend.smooth(found) if self.smooth else found
        if not self.gate:
            return found
        return found * GATES[self.gate][1](attend.at_size(last, found.shape[1:]))


BEST = Attempt("agree", "importance", smooth=True, gate="clipped")
FOCUSED = Attempt("channelwise", smooth=True, gate="clipped")
PEER = tuple(Attempt(name) for name in PEERS)
FINAL = (*PEER, FOCUSED, BEST)
ATTEMPTS = (
    *PEER,
    *(Attempt(r, w) for w in ("none", "importance") for r in ("eq2", "z", "agree", "two maps")),
    *(Attempt(r, "importance") for r in ("min", "geometric", "scaled", "net")),
    *(Attempt(r, "none", "activation", 0.1) for r in ("z", "geometric")),
    *(Attempt(r, "importance", damping=0.1) for r in ("z", "agree")),
    Attempt("z", "importance", "activation"),
    *(Attempt(r, gate=g, smooth=s) for r in ("layercam", "channelwise")
      for g, s in (("linear", False), ("clipped", True))),
    *(Attempt(r, "importance", gate="linear", smooth=s)
      for r in ("z", "agree", "min", "two maps") for s in (False, True)),
    *(Attempt(r, "importance", gate="clipped", smooth=True)
      for r in ("z", "geometric", "two maps", "net")),
    Attempt("agree", "importance", smooth=True), Attempt("agree", "importance", gate="clipped"),
    Attempt("agree", "none", gate="clipped", smooth=True),
    Attempt("agree", "importance", "activation", 0.1, smooth=True, gate="clipped"), BEST,
)  # fmt: skip
SHORT = (
    *PEER, Attempt("z", "importance"), Attempt("agree", "importance"),
    Attempt("z", "importance", gate="linear", smooth=True),
    FOCUSED, Attempt("agree", "importance", gate="linear", smooth=True),
    Attempt("net", "importance", gate="clipped", smooth=True),
    Attempt("geometric", "importance", gate="clipped", smooth=True),
    Attempt("agree", "importance", smooth=True),
    Attempt("agree", "none", smooth=True, gate="clipped"),
    Attempt("agree", "importance", "activation", 0.1, smooth=True, gate="clipped"), BEST,
)  # fmt: skip
CASCADE = (
    *PEER, FOCUSED, BEST, Attempt("z", "importance"),
    *(Attempt("z", "importance", cascade=c) for c in CASCADES),
    *(Attempt("agree", "importance", smooth=True, gate="clipped", cascade=c) for c in CASCADES),
)  # fmt: skip
SETS: dict[str, tuple[Attempt, ...]] = {
    "all": ATTEMPTS, "short": SHORT, "cascades": CASCADE, "final": FINAL,
}  # fmt: skip
