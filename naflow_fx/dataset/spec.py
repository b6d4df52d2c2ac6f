"""ExplainerSpec: how a process makes the explainer for itself, picklable and comparable."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from naflow_fx.artefacts.artefact import Artefact
from naflow_fx.errors import DatasetError
from naflow_fx.explainer import Explainer
from naflow_fx.options import Inverse
from naflow_fx.pairs import PairExplainer
from naflow_fx.subjects import Recipe, Subject, opened, subject
from naflow_fx.subjects.network import Prepare

OPTIONS = ("layers", "inverse", "reduction", "method")


@dataclass(frozen=True)
class ExplainerSpec:
    """What explains the photos: a model by name, an artefact's file, or a callable that makes it.

    Attributes:
        model: a network by its name, as `naflow_fx.subject` takes it; not looked at with
            `artefact` or `make`.
        weights, model_args: of `naflow_fx.subject`.
        layers, inverse, reduction, method: of `naflow_fx.compile`.
        artefact: a file that `Explainer.export`, `package` or `to_onnx` wrote.
        make: device -> Explainer or Artefact; picklable (a module's function, or a
            `functools.partial` of one) where other processes call it.
        preprocessing: how photos become inputs: a `models.Preprocessing`, or a callable of the
            RGB photo that gives [C, H, W]; None: the model's, or what the artefact tells.
        class_names: words for the classes; None: the model's, or the artefact's.
        output: of `naflow_fx.compile`.
        target: what is compiled in, in the words of `Subject.target`, "segment:cat" or "number:0";
            None: classes, which the run asks for.
        compiled: run the program through torch.compile.
        trusted: load the artefact even if it can run code; see `artefacts.Artefact`.
    """

    model: str = "efficientnet_lite0"
    weights: str | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    layers: tuple[str, ...] | None = None
    inverse: Inverse | None = None
    reduction: str | None = None
    method: str | None = None
    artefact: str | None = None
    make: Callable[[torch.device], Any] | None = None
    preprocessing: Prepare | None = None
    class_names: tuple[str, ...] | None = None
    output: str | int | None = None
    target: str | None = None
    compiled: bool = False
    trusted: bool = False

    @classmethod
    def of(cls, subject: Subject, **options: Any) -> ExplainerSpec:
        """What makes a subject's explainer in any process; options: of this class.

        Raises:
            DatasetError: the subject's network was given, not named.
        """
        recipe = subject.recipe
        if recipe is None:
            raise DatasetError(f"{subject.name}: other processes can't make it again; name it, "
                               "nf.subject('nets.py:Net'), or give an explainer")  # fmt: skip
        return cls(
            recipe.model,
            recipe.weights,
            recipe.model_args,
            artefact=recipe.artefact,
            preprocessing=subject.preprocessing,
            class_names=subject.given_names,
            output=subject.output,
            **options,
        )

    @property
    def subject(self) -> Subject:
        """The network that `model` names, or the artefact."""
        recipe = Recipe(
            self.model,
            self.weights,
            dict(self.model_args),
            output=self.output,
            artefact=self.artefact,
        )
        return opened(
            recipe, self.trusted, preprocessing=self.preprocessing, classes=self.class_names
        )

    def prepare(self) -> Prepare:
        """How photos become inputs.

        Raises:
            NaflowError: neither given nor told by the model or the artefact.
        """
        if self.preprocessing is not None:
            return self.preprocessing
        if self.make is None:
            return self.subject.preprocessing
        raise DatasetError(
            "ExplainerSpec(make=...): how photos become inputs isn't known; give "
            "preprocessing= beside it, an nf.models.Preprocessing or a function of "
            "a photo"
        )

    def to_json(self) -> dict[str, Any]:
        """What decides the results, as plain data; file names without their folders."""
        prepare: Any = self.prepare()
        known = dataclasses.is_dataclass(prepare) and not isinstance(prepare, type)
        told = dataclasses.asdict(prepare) if known else name_of(prepare)
        found: dict[str, Any] = {"preprocessing": told, "compiled": self.compiled}
        if self.artefact is not None:
            return {"artefact": Path(self.artefact).name, **found}
        if self.make is not None:
            return {"make": name_of(self.make), **found}
        options = {name: getattr(self, name) for name in OPTIONS}
        options["inverse"] = self.inverse and dataclasses.asdict(self.inverse)
        more = {"model_args": dict(self.model_args), "output": self.output, "target": self.target}
        options |= {name: value for name, value in more.items() if value not in (None, {})}
        file = Path(self.model.rpartition(":")[0] or self.model)
        model = Path(self.model).name if file.is_file() else self.model
        weights = self.weights and Path(self.weights).name
        return {"model": model, "weights": weights, **options, **found}

    def open(self, device: torch.device) -> Opened:
        """The explainer, on a device.

        Raises:
            NaflowError: it can't be made, or isn't one that explains single photos.
        """
        made, names = self._made(device)
        facts = identity(made, self.artefact)
        if self.compiled and isinstance(made, Explainer):
            made = made.compiled()
        return Opened(made, names, facts)

    def _made(self, device: torch.device) -> tuple[Any, tuple[str, ...]]:
        """An Explainer or an Artefact, and words for the classes, () where nobody tells."""
        if self.make is None:
            subject = self.subject
            chosen = {name: getattr(self, name) for name in OPTIONS}
            options = {name: value for name, value in chosen.items() if value is not None}
            if self.target is not None:
                options["target"] = subject.target(self.target)
            made: Any = subject.program(subject.example(device), **options)
            return made, subject.class_names
        made = self.make(device)
        if isinstance(made, PairExplainer) or not isinstance(made, (Explainer, Artefact)):
            raise DatasetError(f"ExplainerSpec(make={name_of(self.make)}) gave a "
                               f"{type(made).__name__}; wanted an Explainer of photos")  # fmt: skip
        return made, tuple(self.class_names or ())


@dataclass(frozen=True)
class Opened:
    """A spec's explainer in this process.

    Attributes:
        explain: an Explainer or Artefact.
        class_names: () where unknown.
        identity: what must be the same in all processes of a run: hashes, options.
    """

    explain: Any
    class_names: tuple[str, ...]
    identity: dict[str, Any]


@dataclass(frozen=True)
class Given:
    """A `make` that gives an explainer there is already, or its copy on another device."""

    explainer: Explainer = field(repr=False)

    def __call__(self, device: torch.device) -> Explainer:
        """The explainer on `device`."""
        if self.explainer._like().device == device:
            return self.explainer
        return copy.deepcopy(self.explainer).to(device)


def as_spec(given: Any) -> ExplainerSpec:
    """What `explain_dataset` takes as its first argument, as an ExplainerSpec.

    Raises:
        DatasetError: none of an ExplainerSpec, a Subject, an Explainer, a name that
            `naflow_fx.subject` takes, an artefact's path, a callable.
    """
    if isinstance(given, ExplainerSpec):
        return given
    if isinstance(given, Subject):
        return ExplainerSpec.of(given)
    if isinstance(given, Explainer):
        return ExplainerSpec(make=Given(given))
    if isinstance(given, (str, Path)):
        exported = Path(given).suffix in (".pt2", ".onnx")
        return ExplainerSpec.of(subject(artefact=str(given)) if exported else subject(given))
    if callable(given) and not isinstance(given, nn.Module):  # which makes no explainer
        return ExplainerSpec(make=given)
    raise DatasetError(f"explain_dataset({type(given).__name__}, ...): wanted an ExplainerSpec, a "
                       "Subject, an Explainer, a name, a path or a callable")  # fmt: skip


def identity(made: Explainer | Artefact, artefact: str | None) -> dict[str, Any]:
    """Hashes of the weights and the program, and the resolved options, as plain data.

    Constants that the compiler folded are left out: processors differ in their last bits.
    """
    if not isinstance(made, Explainer):
        data = b"" if artefact is None else Path(artefact).read_bytes()
        return {"artefact": hashlib.sha256(data).hexdigest()}
    weights = hashlib.sha256()
    for name, tensor in sorted(made.graph_module.state_dict().items()):
        if "folded_" not in name:
            weights.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            weights.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    code = str(made.graph_module.code)
    program = hashlib.sha256(code.encode()).hexdigest()
    return {"weights": weights.hexdigest(), "program": program, "options": made.options.to_json()}


def name_of(function: Any) -> str:
    """A callable's name: the same in every process."""
    if isinstance(function, partial):
        words = [name_of(function.func), *map(_plain, function.args)]
        words += [f"{key}={_plain(value)}" for key, value in sorted(function.keywords.items())]
        return f"partial({', '.join(words)})"
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def _plain(value: Any) -> str:
    """An argument's text, without addresses."""
    simple = isinstance(value, (str, int, float, Path, type(None)))
    return repr(value) if simple else type(value).__qualname__
