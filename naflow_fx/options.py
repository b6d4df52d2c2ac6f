"""What a user can choose: the inverse, the branches, the reduction, the method."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from naflow_fx.errors import OptionError

if TYPE_CHECKING:
    import torch

Rows = Literal["all", "leading"]
Prior = Literal["zero", "activation"]
Weight = Literal["none", "importance"]
Precision = Literal["auto", "float32", "bfloat16"]
Residual = Literal["joint", "capture"]
Reduction = Literal["sum", "channelwise", "attended"]
Method = Literal["naflow", "gradcam", "hirescam", "layercam", "gradcam++", "xgradcam", "focused"]
Keep = Literal["bpfm", "importance", "used", "neuron_times"]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _check(owner: str, name: str, value: Any, choices: Any) -> None:
    if value not in get_args(choices):
        wanted = ", ".join(repr(choice) for choice in get_args(choices))
        raise OptionError(f"{owner}({name}={value!r}): wanted one of {wanted}")


@dataclass(frozen=True)
class Inverse:
    """How an operator without an exact inverse is inverted (METHOD section 3, Eqs. 6-10).

    ``argmin_v || w (A v - (z - c)) ||^2 + damping * sigma_max(w A)^2 * || v - prior ||^2``

    Attributes:
        damping: relative to the operator's largest singular value squared.  0 is the
            Moore-Penrose inverse, the paper's; trained layers amplify with it.
        steps: conjugate gradient steps; fixed, so that the program has no control flow.  None:
            as many as the reduction needs (`STEPS`; single layers, `STEPS_LAYER`; depthwise ones,
            `STEPS_APART`) for maps whose cosine with the converged ones is 0.99 in the mean, 0.97
            at the fifth percentile of call sites.
        rows: "all" output neurons, or the "leading" p of q, as Eq. 6 prints, where q > p.
        prior: damp towards "zero" (minimum norm) or the forward "activation".
        weight: "importance" weights the residual by |Lambda| / mean |Lambda|, clipped at
            `clip` (METHOD section 8); "none" is the paper's.
        clip: largest weight.
        precision: what dense layers multiply in while a float32 problem is solved (Z, residuals
            and all else stay in float32): "bfloat16", "float32", or "auto", bfloat16 where the
            example's device multiplies it faster (NVIDIA from Ampere on, CPUs with AMX or AVX-512
            BF16).

    Raises:
        OptionError: a value is out of range.
    """

    damping: float = 0.01
    steps: int | None = None
    rows: Rows = "all"
    prior: Prior = "zero"
    weight: Weight = "none"
    clip: float = 10.0
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        if not _is_number(self.damping) or not 0 <= self.damping < float("inf"):
            raise OptionError(f"Inverse(damping={self.damping!r}): wanted a number >= 0")
        whole = isinstance(self.steps, int) and not isinstance(self.steps, bool)
        if self.steps is not None and (not whole or self.steps < 1):
            raise OptionError(f"Inverse(steps={self.steps!r}): wanted an integer >= 1")
        if not _is_number(self.clip) or not self.clip > 0:
            raise OptionError(f"Inverse(clip={self.clip!r}): wanted a number > 0")
        _check("Inverse", "rows", self.rows, Rows)
        _check("Inverse", "prior", self.prior, Prior)
        _check("Inverse", "weight", self.weight, Weight)
        _check("Inverse", "precision", self.precision, Precision)


@dataclass(frozen=True)
class Options:
    """All options of one compilation, resolved from the preset and what was given.

    Raises:
        OptionError: a value is none of the choices.
    """

    inverse: Inverse = Inverse()
    residual: Residual = "joint"
    reduction: Reduction = "sum"
    method: Method = "naflow"
    layers: tuple[str, ...] | None = None
    keep: tuple[Keep, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.inverse, Inverse):
            raise OptionError(f"inverse={self.inverse!r}: wanted nf.Inverse(...)")
        if self.layers is not None and not (self.layers and all(map(_is_text, self.layers))):
            raise OptionError(f"compile(layers={self.layers!r}): wanted names and globs of call "
                              "sites; None for all")  # fmt: skip
        _check("compile", "residual", self.residual, Residual)
        _check("compile", "reduction", self.reduction, Reduction)
        _check("compile", "method", self.method, Method)
        for name in self.keep:
            _check("compile", "keep", name, Keep)

    @property
    def steps(self) -> int:
        """Steps of the solver, for a region: its errors reach every map before it."""
        table = STEPS if self.inverse.weight == "none" else STEPS_WEIGHTED
        return self.inverse.steps or table[self.reduction]

    @property
    def steps_layer(self) -> int:
        """Of single layers, with the diagonal operators behind them."""
        table = STEPS_LAYER if self.inverse.weight == "none" else STEPS_WEIGHTED
        return self.inverse.steps or table[self.reduction]

    @property
    def steps_apart(self) -> int:
        """Of layers that keep every channel apart: small problems, each soon solved."""
        table = STEPS_APART if self.inverse.weight == "none" else STEPS_APART_WEIGHTED
        return self.inverse.steps or table[self.reduction]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return dataclasses.asdict(self)


STEPS: dict[Reduction, int] = {"sum": 11, "channelwise": 4, "attended": 4}  # tools/accuracy.py
STEPS_LAYER: dict[Reduction, int] = STEPS | {"sum": 9}
STEPS_APART: dict[Reduction, int] = {"sum": 6, "channelwise": 3, "attended": 2}
STEPS_WEIGHTED: dict[Reduction, int] = STEPS | {"channelwise": 5}
STEPS_APART_WEIGHTED: dict[Reduction, int] = {"sum": 11, "channelwise": 5, "attended": 2}
BFLOAT16_UNITS = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # of torch.cpu
PRESETS = {
    "paper": Options(),
    "best": Options(Inverse(weight="importance"), reduction="attended"),  # docs/better-maps.md
}


def on_device(options: Options, device: torch.device) -> Options:
    """The options with what "auto" stands for on a device in its place."""
    inverse = options.inverse
    if inverse.precision == "auto":
        inverse = dataclasses.replace(inverse, precision=_precision(device))
    return dataclasses.replace(options, inverse=inverse)


def _precision(device: torch.device) -> Precision:
    """bfloat16 where the processor multiplies it faster: matrix units, or AVX-512's products."""
    import torch  # the command line reads the choices without it

    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:  # not public, so asked for with care
        asked = (getattr(torch.cpu, name, lambda: False) for name in BFLOAT16_UNITS)
        fast = device.type == "cpu" and any(ask() for ask in asked)
    return "bfloat16" if fast else "float32"


def resolve(preset: str, **given: Any) -> Options:
    """The preset's options with those that were given (not None) in their place.

    Raises:
        OptionError: no such preset, or a value is none of the choices.
    """
    if not isinstance(preset, str) or preset not in PRESETS:
        raise OptionError(f"preset={preset!r}: wanted one of {', '.join(PRESETS)}")
    for name in ("layers", "keep"):
        value = given.get(name)
        if value is not None:
            several = isinstance(value, Iterable) and not isinstance(value, str)
            given[name] = tuple(value) if several else (value,)
    explicit = {name: value for name, value in given.items() if value is not None}
    return dataclasses.replace(PRESETS[preset], **explicit)
