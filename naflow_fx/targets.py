"""Targets: what of the model's output is explained.

Class indices are an input of the compiled program; a callable is traced into a program of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from naflow_fx.errors import TargetError
from naflow_fx.guards.records import map_tensors

Score = Callable[..., Tensor]
_GRAD_CAM = "ClassifierOutputTarget"
_WANTED = "wanted None, an int, N ints, an int64 tensor [N], a callable, or N callables"


class OfOneSample:
    """A callable of ONE sample's output, made into one of a batch of one: [1, ...] -> [1]."""

    def __init__(self, function: Score) -> None:
        self.function = function

    def __call__(self, output: Any) -> Tensor:
        """The score [1]."""
        return self.function(map_tensors(lambda part: part[0], output)).reshape(1)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OfOneSample) and other.function == self.function

    def __hash__(self) -> int:
        return hash(("one sample", self.function))


def class_index(target: Any) -> int | None:
    """The class that an object is: an integer, or pytorch-grad-cam's `ClassifierOutputTarget`.

    Any other object with a `category` is a callable of its own meaning, and is called.
    """
    kind = type(target)
    if kind.__module__.startswith("pytorch_grad_cam.") and kind.__name__ == _GRAD_CAM:
        target = target.category
    if isinstance(target, Tensor) and target.dim() == 0:
        target = target.item()
    return int(target) if isinstance(target, Integral) and not isinstance(target, bool) else None


def as_callable(target: Any) -> Score | None:
    """The target given to `compile`: None for class indices, or a callable of the output.

    Raises:
        TargetError: an index, which belongs to the call, or anything else.
    """
    if target is None or (callable(target) and class_index(target) is None):
        function: Score | None = target
        return function
    raise TargetError(
        f"target={target!r}: nf.compile takes a callable of the model's output, or None; "
        "class indices go to the call: explainer(images, target=281)"
    )


def callables(target: Any, batch: int) -> list[Score] | Score | None:
    """The callable, or one per sample, that a call's target is; None if it names classes."""
    if callable(target) and class_index(target) is None:
        function: Score = target
        return function
    if not isinstance(target, (list, tuple)) or not target:
        return None
    functions = [t for t in target if callable(t) and class_index(t) is None]
    if not functions:
        return None
    if len(functions) != len(target) or len(target) != batch:
        raise TargetError(
            f"target: got {len(target)} entries, {len(functions)} of them callables, for a batch "
            f"of {batch}; wanted one callable per sample"
        )
    return functions


def class_indices(target: Any, batch: int, classes: int | None, device: torch.device) -> Tensor:
    """int64 [N], -1 for the predicted class.

    Raises:
        TargetError: wrong length, not integers, or a class that the model doesn't have.
    """
    if target is None:
        return torch.full((batch,), -1, dtype=torch.int64, device=device)
    index = class_index(target)
    if index is not None:
        values = [index] * batch
    elif isinstance(target, Tensor):
        values = _from_tensor(target, batch)
    elif isinstance(target, (list, tuple)) or hasattr(target, "tolist"):
        entries = target.tolist() if hasattr(target, "tolist") else target
        entries = entries if isinstance(entries, (list, tuple)) else [entries] * batch
        values = [class_index(t) for t in entries]  # type: ignore[misc]
    else:
        raise TargetError(f"target: got {type(target).__name__} {target!r}; {_WANTED}")
    _check(target, values, batch, classes)
    return torch.tensor(values, dtype=torch.int64, device=device)


def _from_tensor(target: Tensor, batch: int) -> list[int]:
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise TargetError(f"target: got a tensor of {target.dtype}; {_WANTED}")
    if target.dim() > 1:
        raise TargetError(f"target: got a tensor of shape {list(target.shape)}; {_WANTED}")
    values: list[int] = target.tolist() if target.dim() else [int(target)] * batch
    return values


def _check(target: Any, values: list[int], batch: int, classes: int | None) -> None:
    if any(value is None for value in values):
        raise TargetError(f"target: got {target!r}; {_WANTED}")
    if len(values) != batch:
        raise TargetError(f"target: got {len(values)} entries for a batch of {batch} images")
    wrong = [v for v in values if v < -1 or (classes is not None and v >= classes)]
    if wrong:
        last = "" if classes is None else f" to {classes - 1}"
        raise TargetError(
            f"target: class {wrong[0]} does not exist; wanted 0{last}, or -1 for the predicted one"
        )
