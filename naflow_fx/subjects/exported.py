"""ArtefactSubject: an exported explainer as a subject; ExportedNetwork: its network alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from naflow_fx.artefacts import load, read
from naflow_fx.artefacts.metadata import preprocessing_of
from naflow_fx.errors import ArtefactError, OptionError
from naflow_fx.options import open_device
from naflow_fx.subjects.api import Explains, Subject, compiled_in
from naflow_fx.subjects.network import Network
from naflow_fx.subjects.recipe import Recipe

if TYPE_CHECKING:
    from naflow_fx.artefacts.artefact import Artefact


class ArtefactSubject(Subject):
    """An exported explainer with its preprocessing and class names."""

    def __init__(self, recipe: Recipe, trusted: bool, **given: Any) -> None:
        """What `opened` documents, of a recipe that names an artefact."""
        for name in ("weights", "output"):
            if getattr(recipe, name) is not None:
                raise OptionError(f"--{name}: the artefact was made with its own; leave it out, or "
                                  "explain with --model")  # fmt: skip
        self.path, self.trusted = Path(str(recipe.artefact)), trusted
        self.metadata = read(self.path)
        if self.metadata.target["kind"] == "similarity":
            raise ArtefactError(f"{self.path}: compares two images; use it in Python: "
                                "naflow_fx.artefacts.load(path).run(query, support)")  # fmt: skip
        name, names = self.metadata.info.get("model", self.path.name), self.metadata.class_names
        prepare = preprocessing_of(self.path, self.metadata)
        network = Network(str(name), lambda _: self._made("cpu"), prepare, names or ())
        super().__init__(network, recipe=recipe, **given)
        made, taken = self.example().shape[1:], self.metadata.inputs[0].shape[1:]
        if tuple(made) != taken:
            raise ArtefactError(
                f"{self.path}: takes images {list(taken)}, photos become "
                f"{list(made)}; leave --size and --channels out, or explain with "
                "--model"
            )

    @property
    def facts(self) -> dict[str, Any]:
        """What the file says of its network, and its name."""
        return {**self.metadata.info, "artefact": self.path.name}

    def _made(self, device: torch.device | str, pretrained: bool = True) -> ExportedNetwork:
        """The artefact's network, on a device."""
        return ExportedNetwork(load(self.path, open_device(device), self.trusted))

    def explainer(
        self, example: Tensor, pretrained: bool = True, targets: Sequence[Any] = (), **options: Any
    ) -> Explains:
        """The artefact on the device of `example`; OptionError for any options."""
        if options := {**compiled_in(targets), **options}:
            raise OptionError(f"{', '.join(options)}: the artefact was made with its own; leave it "
                              "out, or explain with a network")  # fmt: skip
        found = self._made(example.device).artefact
        self._check_names(found.classes)
        return found


class ExportedNetwork(nn.Module):
    """An artefact's network: what it gives, without the maps."""

    def __init__(self, artefact: Artefact) -> None:
        super().__init__()
        self.artefact = artefact

    def __deepcopy__(self, memo: dict[int, Any]) -> ExportedNetwork:
        """Itself: nothing of it can be changed."""
        return self

    def forward(self, images: Tensor) -> Any:
        """The network's output for images [N, C, H, W]."""
        return self.artefact(images).output
