"""What a user can choose: the method, the reduction, the inverse, layers, what is kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from naflow_fx.errors import (
    NaflowError,
    OptionError,
    check_choice,
    check_positive,
    raised_as,
    unfit,
)

if TYPE_CHECKING:
    import torch

Rows = Literal["used", "all", "leading"]
Precision = Literal["auto", "float32", "bfloat16"]
Reduction = Literal["sum", "channelwise"]
Method = Literal["naflow", "gradcam", "hirescam", "layercam", "gradcam++", "xgradcam", "focused"]
Keep = Literal["bpfm", "importance", "used", "neuron_times"]

REMOVED = {  # what there was before 0.2, and what serves in its place
    "preset": 'the method "focused" is as good as the preset "best", without an inverse; the '
    'preset "paper" is the default',
    "residual": "a region is always solved as a whole",
    "prior": "damping always pulls towards 0",
    "weight": 'the method "focused" puts more of a map on the object, without an inverse',
    "clip": "there is no weight left to clip",
    "reduction='attended'": 'the method "focused" is as good, without an inverse',
}


def refuse_removed(owner: str, given: Iterable[str]) -> None:
    """OptionError for options that an earlier version had."""
    for name in given:
        if name in REMOVED:
            raise OptionError(f"{owner}({name}): was removed; {REMOVED[name]}")


@dataclass(frozen=True)
class Inverse:
    """How an operator without an exact inverse is inverted.

    ``argmin_v || R (A v - (z - c)) ||^2 + damping * sigma_max(R A)^2 * || v ||^2``

    Eqs. 6-10, docs/method.md 3.

    Attributes:
        damping: relative to the operator's largest singular value squared.  A smaller one solves
            more exactly, in more steps, what trained layers answer with noise; 0 is the
            Moore-Penrose inverse, the paper's, for small networks and for checks.
        steps: Krylov steps; fixed, so that the program has no control flow.  None: what maps need
            at that damping, 3 at 0.1 and 11 at 0.01; give more to see whether a map has converged.
        rows: which output neurons have an equation, R.  "used": those that take part in the
            decision, as in the paper's Fig. 3, and a bound those that a ReLU cut; "all", abandoned
            ones as 0, is Eq. 12 to the letter; "leading", the first p of q where q > p, Eq. 6 as
            printed.
        precision: what dense layers multiply in while a float32 problem is solved (Z, residuals
            and all else stay in float32): "bfloat16", "float32" where single values must not move
            by a per cent, or "auto", bfloat16 where the example's device multiplies it faster
            (NVIDIA from Ampere on, CPUs with AMX or AVX-512 BF16).

    Raises:
        OptionError: a value is out of range, or an option was removed.
    """

    damping: float = 0.1
    steps: int | None = None
    rows: Rows = "used"
    precision: Precision = "auto"

    def __new__(cls, *_: Any, **given: Any) -> Inverse:
        """Names what serves in the place of an option that was removed."""
        refuse_removed("Inverse", given)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        number = isinstance(self.damping, (int, float)) and not isinstance(self.damping, bool)
        if not number or not 0 <= self.damping < float("inf"):
            raise unfit(OptionError, "Inverse", "a number >= 0", damping=self.damping)
        if self.steps is not None:
            check_positive(OptionError, "Inverse", steps=self.steps)
        if not self.damping and self.steps is None:
            raise OptionError(
                "Inverse(damping=0): give steps, too; how many an undamped inverse needs depends "
                "on the network: some hundred for small ones"
            )
        check_choice(OptionError, "Inverse", get_args(Rows), rows=self.rows)
        check_choice(OptionError, "Inverse", get_args(Precision), precision=self.precision)

    @property
    def count(self) -> int:
        """The steps that are taken (docs/benchmarks.md: whether they are enough)."""
        return self.steps or max(round(STEPS / self.damping**0.5), 1)


@dataclass(frozen=True)
class Options:
    """All options of one compilation.

    Raises:
        OptionError: a value is none of the choices.
    """

    inverse: Inverse = Inverse()
    reduction: Reduction = "sum"
    method: Method = "naflow"
    layers: tuple[str, ...] | None = None
    keep: tuple[Keep, ...] = ()
    output: str | int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.inverse, Inverse):
            raise unfit(OptionError, "compile", "nf.Inverse(...)", inverse=self.inverse)
        named = self.layers is None or all(isinstance(name, str) for name in self.layers)
        if not named or self.layers == ():
            wanted = "names and globs of call sites; None for all"
            raise unfit(OptionError, "compile", wanted, layers=self.layers)
        refuse_removed("compile", [f"reduction={self.reduction!r}"])
        check_choice(OptionError, "compile", get_args(Reduction), reduction=self.reduction)
        check_choice(OptionError, "compile", get_args(Method), method=self.method)
        if not (self.output is None or isinstance(self.output, str) or type(self.output) is int):
            wanted = "the key or index of the output that is explained"
            raise unfit(OptionError, "compile", wanted, output=self.output)
        for name in self.keep:
            check_choice(OptionError, "compile", get_args(Keep), keep=name)

    @property
    def inverts(self) -> bool:
        """Whether Z is asked for."""
        return self.method == "naflow" or "bpfm" in self.keep

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return dataclasses.asdict(self)


STEPS = 1.1  # over the root of the damping: the convergence of Krylov spaces
BFLOAT16_UNITS = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # of torch.cpu


def on_device(options: Options, device: torch.device) -> Options:
    """The options with what "auto" stands for on a device in its place."""
    if options.inverse.precision != "auto":
        return options
    inverse = dataclasses.replace(options.inverse, precision=_precision(device))
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


def open_device(given: str | torch.device, error: type[NaflowError] = OptionError) -> torch.device:
    """The device, tried with one number; `error` if it is not to be had on this machine."""
    import torch

    missing = error(f"device={str(given)!r}: not to be had on this machine (…); try cpu")
    with raised_as(missing, RuntimeError, AssertionError, NotImplementedError):
        return torch.zeros(1, device=given).device


def resolve(**given: Any) -> Options:
    """Options from what was given; None: the default.

    Raises:
        OptionError: a value is none of the choices.
    """
    for name in ("layers", "keep"):
        value = given.get(name)
        if value is not None:
            several = isinstance(value, Iterable) and not isinstance(value, str)
            given[name] = tuple(value) if several else (value,)
    return Options(**{name: value for name, value in given.items() if value is not None})
