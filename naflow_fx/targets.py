"""Targets: what of the model's output is explained.

Class indices are an input of the compiled program; a callable is traced into a program of its own.
`binary`, `number` and `segment` make callables for outputs that aren't a row of class scores;
`detection` explains one box.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor

from naflow_fx.errors import TargetError, unfit
from naflow_fx.guards.records import map_tensors, pick, plain

if TYPE_CHECKING:
    from naflow_fx.detection import Detection

Score = Callable[..., Tensor]
_GRAD_CAM = "ClassifierOutputTarget"


@dataclass(frozen=True)
class OfOneSample:
    """A callable of ONE sample's output, made into one of a batch of one: [1, ...] -> [1]."""

    function: Score

    def __call__(self, output: Any) -> Tensor:
        """The score [1]."""
        return self.function(map_tensors(lambda part: part[0], output)).reshape(1)


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


def is_function(target: Any) -> TypeGuard[Score]:
    """Whether a target is called, and doesn't name a class."""
    return callable(target) and class_index(target) is None


def as_callable(target: Any) -> Score | None:
    """The target given to `compile`: None for class indices, or a callable of the output.

    Raises:
        TargetError: an index, which belongs to the call, or anything else.
    """
    if target is None or is_function(target):
        return target
    raise TargetError(
        f"target={target!r}: nf.compile takes a callable of the model's output, or None; "
        "class indices go to the call: explainer(images, target=281)"
    )


def callables(target: Any, batch: int) -> list[Score] | Score | None:
    """The callable, or one per sample, that a call's target is; None if it names classes."""
    if is_function(target):
        return target
    functions = list(filter(is_function, target)) if isinstance(target, (list, tuple)) else []
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
    entries = target.tolist() if hasattr(target, "tolist") else target
    several = isinstance(entries, (list, tuple))
    values = list(map(class_index, entries if several else [entries] * batch))
    if None in values:
        raise TargetError(f"target: got {_described(target)}; wanted None, an int, N ints, an "
                          "int64 tensor [N], a callable, or N callables")  # fmt: skip
    if len(values) != batch:
        raise TargetError(f"target: got {len(values)} entries for a batch of {batch} images")
    _check_range([value for value in values if value is not None], classes)
    return torch.tensor(values, dtype=torch.int64, device=device)


def _described(target: Any) -> str:
    """What a target is that holds no class indices."""
    if isinstance(target, Tensor):
        broken = target.is_floating_point() or target.is_complex() or target.dtype == torch.bool
        return f"a tensor of {target.dtype}" if broken else f"a tensor of shape {[*target.shape]}"
    several = isinstance(target, (list, tuple)) or hasattr(target, "tolist")
    return repr(target) if several else f"{type(target).__name__} {target!r}"


def _check_range(values: list[int], classes: int | None) -> None:
    wrong = [v for v in values if v < -1 or (classes is not None and v >= classes)]
    if classes == 1 and wrong[:1] == [1]:
        raise TargetError(
            "target: the model has one output, class 0; of a binary head, class 1 is "
            "target=nf.targets.binary(1), and class 0 binary(0)"
        )
    if wrong:
        last = "" if classes is None else f" to {classes - 1}"
        raise TargetError(
            f"target: class {wrong[0]} does not exist; wanted 0{last}, or -1 for the predicted one"
        )


@dataclass(frozen=True)
class binary:  # noqa: N801 - called like a function, and a value of its own
    """A class of a head with one output [N] or [N, 1]: ``nf.compile(..., target=binary(1))``.

    The score is ``y - threshold`` of class 1, ``threshold - y`` of class 0, and of the predicted
    class, `None`, ``|y - threshold|``.

    Attributes:
        index: 0 or 1; None: the predicted one.
        threshold: above which class 1 is predicted: 0 of a logit, 0.5 behind a sigmoid.

    Raises:
        TargetError: another class.
    """

    index: int | None = None
    threshold: float = 0.0

    def __post_init__(self) -> None:
        if self.index not in (0, 1, None) or isinstance(self.index, bool):
            wanted = "0, 1, or None for the predicted one"
            raise unfit(TargetError, "binary", wanted, index=self.index)

    def __call__(self, output: Any) -> Tensor:
        """The score, [N]."""
        over = number()(output) - self.threshold
        return over.abs() if self.index is None else over if self.index else -over


@dataclass(frozen=True)
class number:  # noqa: N801
    """The one number of a regression, an output [N] or [N, 1], or one of several.

    Attributes:
        index: which number of a row.
    """

    index: int = 0

    def __call__(self, output: Any) -> Tensor:
        """The score, [N]."""
        rows = pick(output, None)
        found: Tensor = rows.reshape(rows.shape[0], -1)[:, self.index]
        return found


@dataclass(frozen=True, eq=False)
class segment:  # noqa: N801
    """The mean logit of a class over a mask: ``nf.compile(..., target=nf.targets.segment(8))``.

    For outputs [N, classes, H, W]: a tensor (segmentation-models-pytorch), or what torchvision
    calls "out" and Hugging Face "logits".  The mask is held constant.

    Attributes:
        index: the class.
        mask: bool [H, W] of the output's size, for all images; None: where the class is predicted,
            of one channel where its logit is above 0.  Of an image in which it is nowhere, score
            and maps are NaN.
    """

    index: int
    mask: Tensor | None = None

    def __call__(self, output: Any) -> Tensor:
        """The score, [N]; of ONE sample's output [classes, H, W] a number."""
        scores = _scores(output)
        one = scores[..., self.index, :, :]
        where = self._where(scores, one)
        mean: Tensor = (one * where).sum((-2, -1)) / where.sum((-2, -1))
        return mean

    def _where(self, scores: Tensor, one: Tensor) -> Tensor:
        """1 inside the mask, 0 outside."""
        if self.mask is not None:
            if self.mask.shape != one.shape[-2:]:
                raise TargetError(f"segment: the mask is {list(self.mask.shape)}; wanted the "
                                  f"output's size, {list(one.shape[-2:])}")  # fmt: skip
            return self.mask.to(one).expand(one.shape)
        inside = one > 0 if scores.shape[-3] == 1 else one >= scores.amax(-3)
        return inside.to(one.dtype)


def _scores(output: Any) -> Any:
    """The class scores of a segmentation."""
    parts = plain(output)
    if not isinstance(parts, dict):
        return pick(output, None)
    named = [parts[name] for name in ("out", "logits") if name in parts]
    return named[0] if named else pick(output, None)


def detection(model: torch.nn.Module, photo: Tensor, box: int = 0) -> Detection:
    """One box of a one-stage detector, ready to be explained.

    What is explained is the class logit of the box's anchor, before non-maximum suppression.  A
    detector's forward can't be traced (it loops over images, and its number of boxes is data), so
    the network is its backbone and head, for photos as its own transform resizes them.

    ``found = nf.targets.detection(model, photo, box=0)``, then ``found.explain()`` is a flow, and
    ``found.box``, ``found.label``, ``found.confidence`` say what it is about.

    Args:
        model: SSD, SSDlite, RetinaNet or FCOS of torchvision, or ultralytics' YOLO from v8 on.
        photo: [3, H, W] or [1, 3, H, W] in [0, 1], as the detector takes it; of YOLO its sides
            are multiples of 32.
        box: which of its boxes, in its order: the most confident first.

    Raises:
        TargetError: a two-stage detector, another model, or a box that isn't there.
    """
    from naflow_fx.detection import detect

    return detect(model, photo, box)
