"""Subject: a network with its preprocessing and class names, from a photo to a flow."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from PIL import Image
from torch import Tensor, nn

import naflow_fx
from naflow_fx.detection import Box, Boxes, detector_of
from naflow_fx.errors import ModelError, PhotoError, TargetError
from naflow_fx.explainer import Explainer
from naflow_fx.flow import AttentionFlow
from naflow_fx.flow.data import About
from naflow_fx.models.preprocess import class_index, open_photo, to_rgb
from naflow_fx.options import open_device
from naflow_fx.subjects.inputs import Words, asked, class_words, prepared, seen
from naflow_fx.subjects.network import Network, Prepare, of_output
from naflow_fx.subjects.recipe import Recipe
from naflow_fx.targets import binary, number, segment

if TYPE_CHECKING:
    from naflow_fx.artefacts.artefact import Artefact

Explains: TypeAlias = "Explainer | Artefact | Boxes"
Photo = str | PathLike[str] | Image.Image
KINDS: dict[str, Any] = {"segment": segment, "binary": binary, "number": number, "box": Box}
PREDICTED = "predicted"  # as a target: the class that the network predicts
GREY = Image.new("RGB", (256, 256), "grey")


class Subject:
    """A network with all that is needed to explain photos with it.

    Attributes:
        name: what to call it.
        class_names: words for its classes, in their order; () where they are unknown.
        recipe: what it was made from; None for a network that was given.
    """

    def __init__(
        self,
        model: nn.Module | Network,
        *,
        preprocessing: Prepare | None = None,
        classes: Words | None = None,
        output: str | int | None = None,
        name: str | None = None,
        recipe: Recipe | None = None,
    ) -> None:
        """A network that is there; `naflow_fx.subject` opens one by its name.

        Args:
            model: the network, in any mode; left untouched.
            preprocessing: a `models.Preprocessing`, or a function, photo (RGB) -> [C, H, W].
            classes: words for the classes, class -> words, or a file that has them.
            output: of a network that gives several, the key or index of the one that is
                explained.
            name: what to call it; None: its class's name.
            recipe: what was said of it; it tells what the others leave out.

        Raises:
            ModelError: names of classes that can't be read, or too little is said of the input.
        """
        network = (
            model if isinstance(model, Network) else Network(type(model).__name__, lambda _: model)
        )
        said = recipe or Recipe()
        if preprocessing is None:
            preprocessing = prepared(network.preprocessing, said)
        words = said.classes if classes is None else classes
        self.name, self.recipe = name or network.name, recipe
        self.class_names = network.class_names if words is None else class_words(words)
        self.output = said.output if output is None else output
        self._network, self._prepare = network, preprocessing
        self._last: tuple[Any, Explains] | None = None

    @property
    def preprocessing(self) -> Prepare:
        """How photos become inputs.

        Raises:
            ModelError: nobody has told.
        """
        if self._prepare is None:
            raise asked(self.name)
        return self._prepare

    @property
    def given_names(self) -> tuple[str, ...] | None:
        """Words for the classes that somebody gave; None: they are those that the network tells."""
        return None if self.class_names == self._network.class_names else self.class_names

    @property
    def embeds(self) -> bool:
        """Whether the output is an embedding, not class scores."""
        return self._network.embeds

    @property
    def facts(self) -> dict[str, Any]:
        """What records say of it, as plain data: its name, its weights, the recipe."""
        found: dict[str, Any] = {"model": self.name, "weights": self._network.weights}
        return found if self.recipe is None else {**found, "subject": self.recipe.to_json()}

    def build(self, device: torch.device | str = "cpu", pretrained: bool = True) -> nn.Module:
        """The network in eval mode, made with the same random numbers every time.

        Of several outputs it gives `output` alone.

        Args:
            device: where.
            pretrained: whether public weights are fetched where no others are named.

        Raises:
            ModelError: no such weights, or of another network.  OptionError: no such device.
        """
        made = self._made(device, pretrained)
        if isinstance(made, torch.export.ExportedProgram):
            return of_output(made.module(), self.output)
        return of_output(copy.deepcopy(made).eval() if made.training else made, self.output)

    def _made(self, device: torch.device | str, pretrained: bool = True) -> Any:
        """The network or ExportedProgram on a device; a given one stays where it is."""
        device = open_device(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            made = self._network.build(pretrained and (self.recipe or Recipe()).weights is None)
        if isinstance(made, torch.export.ExportedProgram):
            from torch.export.passes import move_to_device_pass

            return made if device.type == "cpu" else move_to_device_pass(made, device)
        own = next(iter([*made.parameters(), *made.buffers()]), None)
        if own is None or own.device == device:
            return made
        return copy.deepcopy(made).to(device)

    def example(self, device: torch.device | str = "cpu") -> Tensor:
        """What a grey photo becomes, [1, C, H, W]."""
        return self.preprocessing(GREY)[None].to(open_device(device))

    def explainer(
        self, example: Tensor, pretrained: bool = True, targets: Sequence[Any] = (), **options: Any
    ) -> Explains:
        """The explainer for images like `example`, on its device.

        Args:
            example: [1, C, H, W].
            pretrained: whether public weights are fetched where no others are named.
            targets: what it will be asked for; where all are callables the first is compiled in:
                an output that is no row of class scores has no program without one.
            options: of `naflow_fx.compile`.

        Raises:
            ModelError: another number of names than classes.
            TargetError: a two-stage detector.
        """
        network = self._made(example.device, pretrained)
        if detector_of(network) is not None:
            return Boxes(network, example, options, *targets[:1])
        fixed = {} if self.output is None else {"output": self.output}
        made = naflow_fx.compile(network, example, **{**fixed, **compiled_in(targets), **options})
        self._check_names(made.classes)
        return made

    def program(self, example: Tensor, **options: Any) -> Explainer | Artefact:
        """The explainer, of a network that one program explains.

        Raises:
            TargetError: a detector.
        """
        made = self.explainer(example, **options)
        if isinstance(made, Boxes):
            raise TargetError(f"{self.name}: a detector's boxes are explained photo by photo, by "
                              "explain and report; in Python nf.targets.detection(...) gives the "
                              "network and target of one, for nf.compile")  # fmt: skip
        return made

    def _check_names(self, classes: int | None) -> None:
        """ModelError for another number of names than classes; those nobody gave are forgotten."""
        if classes is None or not self.class_names or len(self.class_names) == classes:
            return
        if self.given_names is not None:
            raise ModelError(f"{self.name}: {len(self.class_names)} names for {classes} classes; "
                             "give one a class, in their order")  # fmt: skip
        self.class_names = ()  # they were of other weights

    def target(self, given: Any) -> Any:
        """A target in numbers: a name becomes its class, "predicted" None; of several each.

        "segment:cat", "binary:1" and "number:0" are those of `naflow_fx.targets`, "box:0" the
        first box of a detector.

        Raises:
            TargetError: there is no such class, with the nearest names.
        """
        if isinstance(given, (list, tuple)):
            return [-1 if (one := self.target(each)) is None else one for each in given]
        if not isinstance(given, str):
            return given
        kind, colon, what = given.partition(":")
        if colon and kind in KINDS and given not in self.class_names:
            return self._of_kind(kind, what)
        if given == PREDICTED and given not in self.class_names:
            return None
        if not self.class_names:
            try:
                return int(given)
            except ValueError:
                raise TargetError(f"no class {given!r}: what {self.name}'s classes are called "
                                  "isn't known; give a number, or --classes FILE (classes=)"
                                  ) from None  # fmt: skip
        return class_index(given, self.class_names)

    def _of_kind(self, kind: str, what: str) -> Any:
        """The target that "segment:cat", "binary:1", "number:0" or "box:0" is."""
        index = self.target(what) if kind == "segment" else what
        try:
            return KINDS[kind](int(index))
        except (TypeError, ValueError):
            raise TargetError(f"{kind}:{what}: wanted a number behind the colon, such as "
                              f"{kind}:0") from None  # fmt: skip

    def inputs(self, photos: Sequence[Photo], device: torch.device | str = "cpu") -> Tensor:
        """What photos become, [N, C, H, W]; PhotoError for one that can't be read, or for none."""
        there = open_device(device)
        if not len(photos):
            raise PhotoError("photos: got none; give one or several, files or PIL images")
        return torch.stack([self.preprocessing(_opened(photo)) for photo in photos]).to(there)

    def told(self, flow: AttentionFlow, photos: Sequence[Photo]) -> AttentionFlow:
        """The flow of the photos, which knows them, and what the network is."""
        about, known = self.about(photos), flow.about
        shown, info = known.photos or about.photos, {**about.info, **known.info}
        return replace(flow, about=replace(about, photos=shown, info=info))

    def about(self, photos: Sequence[Photo]) -> About:
        """What a flow of the photos carries along."""
        shown = tuple(seen(self.preprocessing, _opened(photo)) for photo in photos)
        named = all(not isinstance(photo, Image.Image) for photo in photos)
        names = tuple(Path(photo).name for photo in photos) if named else ()  # type: ignore[arg-type]
        return About(shown, names, self.class_names, self.facts)

    def explain(
        self,
        photos: Photo | Sequence[Photo],
        target: Any = None,
        device: torch.device | str = "cpu",
        **options: Any,
    ) -> AttentionFlow:
        """The flow of photos; it knows them and the names of the classes.

        Args:
            photos: files or PIL images, one or several.
            target: None (the predicted class), a class's name or number, one for each photo, or
                what else an `Explainer` takes; "segment:cat", "binary:1", "number:0", and of a
                detector "box:0".
            device: where.
            options: of `naflow_fx.compile`; with the same ones, what was compiled is used again.

        Raises:
            PhotoError: a photo can't be read, or there is none.  TargetError: no such class.
                ModelError: the network can't be made.  OptionError: there is no such device.
        """
        given = list(photos) if isinstance(photos, (list, tuple)) else [photos]
        chosen = self.target(target)
        images = self.inputs(given, device)  # type: ignore[arg-type]
        key = (images.shape[1:], images.device, compiled_in([chosen]), options)
        if self._last is None or self._last[0] != key:
            self._last = (key, self.explainer(images[:1], targets=[chosen], **options))
        flow: AttentionFlow = self._last[1](images, target=chosen)
        return self.told(flow, given)  # type: ignore[arg-type]


def compiled_in(targets: Sequence[Any]) -> dict[str, Any]:
    """The option `target` of `compile`: the first, where all are callables."""
    return {"target": targets[0]} if targets and all(map(callable, targets)) else {}


def _opened(photo: Photo) -> Image.Image:
    return to_rgb(photo) if isinstance(photo, Image.Image) else open_photo(photo)
