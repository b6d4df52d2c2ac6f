"""Detection: one box that was found, and the class logit that it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from naflow_fx.errors import TargetError

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
    box: tuple[float, ...]
    label: int
    confidence: float
    count: int
    picture: Tensor
    area: tuple[int, int]

    def compiled(self, **options: Any) -> Any:
        """The `Explainer` of the network for this target; options: of `naflow_fx.compile`."""
        import naflow_fx

        return naflow_fx.compile(self.network, self.image, target=self.target, **options)

    def explain(self, **options: Any) -> AttentionFlow:
        """The flow of the image; options: of `naflow_fx.compile`."""
        flow: AttentionFlow = self.compiled(**options)(self.image)
        return flow

    def __str__(self) -> str:
        """Where it is, in shares of the photo from its upper left corner."""
        left, top, right, bottom = (f"{share:.0%}" for share in self.box)
        return f"{left} to {right} across, {top} to {bottom} down"


def chosen(boxes: Sequence[Any] | Tensor, box: int) -> int:
    """The number of a box, counted from the end where negative; TargetError if it isn't there."""
    if not -len(boxes) <= box < len(boxes):
        raise TargetError(f"detection: box {box} of {len(boxes)} boxes that the detector finds on "
                          "this photo")  # fmt: skip
    return box % len(boxes)
