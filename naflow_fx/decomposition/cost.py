"""What a decomposition costs, counted while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


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


class Multiplications(TorchDispatchMode):
    """Counts the multiplications and additions of convolutions and matrix products.

    ``total``: so far, by torch's own formulas.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """The call, counted."""
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        formula = flop_registry.get(function._overloadpacket)
        if formula is not None:
            self.total += int(formula(*args, **kwargs, out_val=result))
        return result
