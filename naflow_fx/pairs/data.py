"""PairData: what one call of a pair explainer computes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor
from typing_extensions import Self

from naflow_fx.flow import AttentionFlow
from naflow_fx.flow.data import as_slice
from naflow_fx.guards.records import map_tensors


@dataclass(repr=False, eq=False)
class PairData:
    """The flows of N pairs of images.

    query: the flow of the N queries.  support: that of the supports, N x shots of them, pair by
    pair.  similarity: [N], the metric's value.  contribution: [N, D], each embedding channel's
    share of the score (omega, Eq. 18); None where the metric is a callable.
    """

    query: AttentionFlow
    support: AttentionFlow
    similarity: Tensor
    contribution: Tensor | None

    def __len__(self) -> int:
        """Number N of pairs."""
        return int(self.similarity.shape[0])

    @property
    def shots(self) -> int:
        """Support images of each query."""
        return len(self.support) // max(len(self), 1)

    def __repr__(self) -> str:
        """One line: pairs, layers, similarity."""
        values = ", ".join(f"{v:.3f}" for v in self.similarity[:3].tolist())
        more = ", ..." if len(self) > 3 else ""
        each = f", shots={self.shots}" if self.shots > 1 else ""
        return (f"PairFlow(pairs={len(self)}{each}, layers={len(self.query.maps)}, "
                f"similarity=[{values}{more}])")  # fmt: skip

    def __getitem__(self, index: int | slice) -> Self:
        """One pair (N = 1), or a slice of them; IndexError outside of the batch."""
        start, stop, step = as_slice(index, len(self), "pair").indices(len(self))
        if step != 1:
            raise IndexError("A slice of pairs has no step.")
        support = self.support[start * self.shots : stop * self.shots]
        shares = map_tensors(lambda shares: shares[start:stop], self.contribution)
        return replace(
            self,
            query=self.query[start:stop],
            support=support,
            similarity=self.similarity[start:stop],
            contribution=shares,
        )

    def cpu(self) -> Self:
        """The same with all tensors in main memory."""
        shares = map_tensors(Tensor.cpu, self.contribution)
        return replace(self, query=self.query.cpu(), support=self.support.cpu(),
                       similarity=self.similarity.cpu(), contribution=shares)  # fmt: skip
