"""Detection: one box that was found; Boxes: the explainer of a detector's boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

from naflow_fx.errors import InputError, TargetError

if TYPE_CHECKING:
    from naflow_fx.flow import AttentionFlow


@dataclass(frozen=True)
class Box:
    """A target of `Boxes`: the `index`-th box of a photo, the most confident first."""

    index: int


@dataclass(frozen=True)
class Logit:
    """The logit of a class at an anchor, of raw outputs [N, anchors, classes]."""

    anchor: int
    label: int

    def __call__(self, output: Any) -> Tensor:
        """The score, [N]."""
        logits = output["cls_logits"] if isinstance(output, dict) else output
        found: Tensor = logits[:, self.anchor, self.label]
        return found


@dataclass(frozen=True, eq=False)
class Detection:
    """One box that a detector found.

    Attributes:
        network: backbone and head; what is compiled.
        image: [1, 3, h, w], the photo as the detector gives it to the network.
        target: the class logit of the box's anchor, a callable of the network's output.
        box: (left, top, right, bottom) in fractions of the photo.
        label: its class.
        confidence: the detector's own score.
        count: how many boxes there are.
        picture: [3, h, w] in [0, 1], what the network sees of the photo.
        area: (height, width), the part of `picture` that is the photo; what is beyond is padding.
    """

    network: nn.Module
    image: Tensor
    target: Logit
    box: tuple[float, float, float, float]
    label: int
    confidence: float
    count: int
    picture: Tensor
    area: tuple[int, int]

    def explain(self, **options: Any) -> AttentionFlow:
        """The flow of the image; options: of `naflow_fx.compile`."""
        import naflow_fx

        made = naflow_fx.compile(self.network, self.image, target=self.target, **options)
        flow: AttentionFlow = made(self.image)
        return flow

    def __str__(self) -> str:
        """Where it is, in shares of the photo from its upper left corner."""
        left, top, right, bottom = (f"{share:.0%}" for share in self.box)
        return f"{left} to {right} across, {top} to {bottom} down"


class Detector(Protocol):
    """How boxes of a network are found."""

    def find(self, image: Tensor, box: int) -> Detection:
        """The box-th of an image [3, H, W]; TargetError where there are fewer."""


def chosen(boxes: Sequence[Any] | Tensor, box: int) -> int:
    """The number of a box, counted from the end where negative; TargetError if it isn't there."""
    if not -len(boxes) <= box < len(boxes):
        raise TargetError(f"detection: box {box} of {len(boxes)} boxes that the detector finds on "
                          "this photo")  # fmt: skip
    return box % len(boxes)


class Boxes:
    """Explains the boxes of a detector, a photo at a time: what a `Subject` of one calls.

    Attributes:
        layers: names of the computed call sites, in forward order.
        classes: None; a box is no class.
    """

    classes = None

    def __init__(
        self, model: nn.Module, example: Tensor, options: dict[str, Any], target: Any = None
    ) -> None:
        """For photos like `example` [1, 3, H, W]; options: of `naflow_fx.compile`.

        target: the `Box` whose program is made first; None: the most confident one.
        """
        self.model, self.example, self.options, self.target = model, example, options, target

    @cached_property
    def _explainer(self) -> Any:
        import naflow_fx

        found = self._found(self.example, _index(self.target))
        return naflow_fx.compile(found.network, found.image, target=found.target, **self.options)

    @property
    def layers(self) -> list[str]:
        """Names of the computed call sites, in forward order."""
        return list(self._explainer.layers)

    def __call__(self, images: Tensor, target: Any = None) -> AttentionFlow:
        """The flow of one photo [1, 3, H, W]; it knows the box, and what the network saw.

        target: a `Box`; None: the most confident one.

        Raises:
            InputError: several photos.  TargetError: no such box, or another kind of target.
        """
        if len(images) != 1:
            raise InputError(
                f"images: got {len(images)} photos; boxes are explained photo by photo"
            )
        index = _index(target)
        found = self._found(images, index)
        flow: AttentionFlow = self._explainer(found.image, target=found.target)
        flow.about = _about(found, index)
        return flow

    def inspect(self) -> Any:
        """What `Explainer.inspect` gives."""
        return self._explainer.inspect()

    def _found(self, images: Tensor, box: int) -> Detection:
        from naflow_fx.detection import detect

        return detect(self.model, images, box)


def _index(target: Any) -> int:
    """The number of a box, 0 for None; TargetError for another kind of target."""
    if not (target is None or isinstance(target, Box)):
        raise TargetError(f"target: got {target!r} of a detector; wanted box:0, box:1, ..., or "
                          "none for the most confident box")  # fmt: skip
    return 0 if target is None else target.index


def _about(found: Detection, index: int) -> Any:
    """The photo with the box drawn on it, and what records say of it."""
    from PIL import Image, ImageDraw

    from naflow_fx.flow.data import About

    pixels = found.picture.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).cpu().numpy()
    picture = Image.fromarray(pixels)
    height, width = found.area
    left, top, right, bottom = found.box
    corners = (left * width, top * height, right * width, bottom * height)
    ImageDraw.Draw(picture).rectangle(corners, outline="lime", width=max(2, width // 150))
    facts = {"index": index, "count": found.count,
             "label": found.label, "confidence": found.confidence, "box": list(found.box),
             "where": str(found)}  # fmt: skip
    return About(photos=(picture,), info={"detection": facts})
