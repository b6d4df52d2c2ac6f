"""What a decomposition costs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Work in units of one forward pass of one image; a full backward pass to it costs one, too.

    Attributes:
        forward: forward passes: 1.
        backward: backward passes, from the multiplications that ran: each row goes back from one
            layer to the next only.
        rows: nodes that were decomposed, each a row of a batch.
        batches: calls of the importance programs.
    """

    forward: float
    backward: float
    rows: int
    batches: int

    @property
    def passes(self) -> float:
        """Forward and backward passes together."""
        return self.forward + self.backward

    def __str__(self) -> str:
        return (
            f"{self.forward:g} forward pass and {self.backward:.3g} backward passes: "
            f"{self.rows} nodes led back to the next layer, in {self.batches} batches"
        )
