"""What a user can choose: the inverse, the branches, the reduction, the method."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from naflow_fx.errors import OptionError

Rows = Literal["all", "leading"]
Prior = Literal["zero", "activation"]
Weight = Literal["none", "importance"]
Residual = Literal["joint", "capture"]
Reduction = Literal["sum", "channelwise"]
Method = Literal["naflow", "gradcam", "hirescam", "layercam", "gradcam++", "xgradcam"]
Keep = Literal["bpfm", "importance"]


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
        steps: conjugate gradient steps; fixed, so that the program has no control flow.
        rows: "all" output neurons, or the "leading" p of q, as Eq. 6 prints, where q > p.
        prior: damp towards "zero" (minimum norm) or the forward "activation".
        weight: "importance" weights the residual by |Lambda| / mean |Lambda|, clipped at
            `clip` (METHOD section 8); "none" is the paper's.
        clip: largest weight.

    Raises:
        OptionError: a value is out of range.
    """

    damping: float = 0.01
    steps: int = 12
    rows: Rows = "all"
    prior: Prior = "zero"
    weight: Weight = "none"
    clip: float = 10.0

    def __post_init__(self) -> None:
        if not _is_number(self.damping) or not 0 <= self.damping < float("inf"):
            raise OptionError(f"Inverse(damping={self.damping!r}): wanted a number >= 0")
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise OptionError(f"Inverse(steps={self.steps!r}): wanted an integer >= 1")
        if not _is_number(self.clip) or not self.clip > 0:
            raise OptionError(f"Inverse(clip={self.clip!r}): wanted a number > 0")
        _check("Inverse", "rows", self.rows, Rows)
        _check("Inverse", "prior", self.prior, Prior)
        _check("Inverse", "weight", self.weight, Weight)


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

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return dataclasses.asdict(self)


PRESETS = {"paper": Options()}


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
