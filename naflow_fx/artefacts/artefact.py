"""Artefact: an exported file, called as the explainer that it came from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from naflow_fx.artefacts.formats import OPENERS
from naflow_fx.artefacts.metadata import OUT, Value, read
from naflow_fx.artefacts.untrusted import check_safe
from naflow_fx.errors import ArtefactError, InputError, TargetError, raised_as
from naflow_fx.flow import AttentionFlow
from naflow_fx.options import open_device
from naflow_fx.targets import class_indices


class Artefact:
    """A loaded artefact: ``flow = artefact(images, target=281)``.

    Attributes:
        metadata: what the file says of itself.
        device: where it runs.
    """

    def __init__(
        self, path: str | Path, device: str | torch.device | None = None, trusted: bool = False
    ) -> None:
        """Loads the file.

        Args:
            path: what `Explainer.export`, `package` or `to_onnx` wrote.
            device: None: the one it was made for.
            trusted: loads the file unseen; else one that could run code then is refused: a
                package, which is machine code, and a .pt2 that holds what no exporter writes.

        Raises:
            ArtefactError: not an artefact, not for this device, or not safe.  OSError: it can't
                be read.
        """
        path = Path(path)
        self.metadata = read(path)
        if not trusted:
            check_safe(path, self.metadata.kind)
        self.device = (torch.device(self.metadata.device) if device is None
                       else open_device(device, ArtefactError))  # fmt: skip
        damaged = ArtefactError(f"{path}: damaged, or of another version of torch (…)")
        with raised_as(damaged, RuntimeError, ValueError, KeyError, AssertionError):
            self._run = OPENERS[self.metadata.kind](path, self.metadata, self.device)

    @property
    def layers(self) -> list[str]:
        """Names of the computed call sites, in forward order."""
        return list(self.metadata.call_sites)

    def run(self, *inputs: Tensor) -> dict[str, Any]:
        """The program's own result of its own inputs: ``{"output", "score", "maps": {...}, ...}``.

        Raises:
            InputError: inputs of other number, shapes or dtypes than `metadata.inputs`.
        """
        wanted = self.metadata.inputs
        if len(inputs) != len(wanted):
            raise InputError(f"got {len(inputs)} inputs; wanted {', '.join(map(str, wanted))}")
        for value, x in zip(wanted, inputs, strict=True):
            _check(value, x)
        if len({len(x) for x in inputs}) > 1:
            raise InputError(f"inputs of different batches: {[len(x) for x in inputs]}")
        given, outputs = [x.to(self.device) for x in inputs], self.metadata.outputs
        # the three runners' errors share no class
        with raised_as(ArtefactError("the artefact's program can't run: …"), Exception):
            found = self._run(given)
        if len(found) != len(outputs):
            raise ArtefactError(f"the artefact names {len(outputs)} outputs, its program gives "
                                f"{len(found)}; export it again")  # fmt: skip
        renamed = {value.name + OUT: value.name for value in wanted}
        return nested([renamed.get(value.name, value.name) for value in outputs], found)

    def __call__(self, images: Tensor | Sequence[Tensor], target: Any = None) -> AttentionFlow:
        """The flow of images [N, C, H, W], as `Explainer` gives it.

        Args:
            images: as the model takes them, of the size that was compiled; a tuple of them for a
                model of several image inputs.
            target: None (the predicted class), an int, N ints, or an int64 tensor [N].

        Raises:
            InputError: images that don't fit.  TargetError: a target that doesn't fit, or one
                for an artefact whose target was compiled in.
            ArtefactError: an artefact of pairs; they are run with `run(query, support)`.
        """
        inputs: list[Any] = list(images) if isinstance(images, (list, tuple)) else [images]
        kind = self.metadata.target["kind"]
        if kind == "similarity":
            raise ArtefactError("this artefact compares two images: artefact.run(query, support)")
        if kind == "function" and target is not None:
            raise TargetError("this artefact's target was compiled in; give none")
        if kind == "class":
            inputs.append(class_indices(target, len(inputs[0]), self.classes, self.device))
        size = tuple(int(s) for s in self.metadata.inputs[0].shape[2:])
        return AttentionFlow.of_result(self.run(*inputs), size, dict(self.metadata.options))

    @property
    def classes(self) -> int | None:
        """Number K of classes where the network's output is a row of scores [N, K]; else None."""
        output = self.metadata.output("output")
        last = output.shape[-1] if output is not None and len(output.shape) == 2 else None
        return last if isinstance(last, int) else None


def nested(names: Sequence[str], tensors: Sequence[Tensor]) -> dict[str, Any]:
    """A flat result as the program's dictionary: "maps.a.b" goes to ``["maps"]["a.b"]``.

    A model's output of several tensors, "output.0" and so on, becomes a tuple or a dictionary.
    """
    result: dict[str, Any] = {}
    for name, tensor in zip(names, tensors, strict=True):
        first, _, rest = name.partition(".")
        if rest:
            result.setdefault(first, {})[rest] = tensor
        else:
            result[first] = tensor
    output = result.get("output")
    if isinstance(output, dict) and all(key.isdigit() for key in output):
        result["output"] = tuple(output.values())
    return result


def _check(value: Value, x: Any) -> None:
    """One input against the metadata."""
    if not isinstance(x, Tensor):
        raise InputError(f"{value.name}: got {type(x).__name__}; wanted a tensor {value}")
    dtype = str(x.dtype).removeprefix("torch.")
    if dtype != value.dtype or tuple(x.shape[1:]) != value.shape[1:] or not len(x):
        raise InputError(f"got {Value(value.name, tuple(x.shape), dtype)}; this artefact was made "
                         f"for {value}")  # fmt: skip
