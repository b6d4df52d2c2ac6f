"""PairExplainer: two images in, two attention flows out: why are they alike?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from naflow_fx.errors import InputError
from naflow_fx.explainer import Explainer, check_image
from naflow_fx.flow import PARTS, AttentionFlow, Scale
from naflow_fx.flow_save import Style
from naflow_fx.pair_save import save_pairs
from naflow_fx.records import map_tensors
from naflow_fx.similarity import Similarity


@dataclass(repr=False, eq=False)
class PairFlow:
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

    def __repr__(self) -> str:
        """One line: pairs, layers, similarity."""
        values = ", ".join(f"{v:.3f}" for v in self.similarity[:3].tolist())
        more = ", ..." if len(self) > 3 else ""
        shots = len(self.support) // max(len(self), 1)
        each = f", shots={shots}" if shots > 1 else ""
        return (f"PairFlow(pairs={len(self)}{each}, layers={len(self.query.maps)}, "
                f"similarity=[{values}{more}])")  # fmt: skip

    def _repr_html_(self) -> str:
        """What a notebook shows: a line of facts, the queries' maps, the supports' maps."""
        from naflow_fx.viewer.notebook import of_pairs

        return of_pairs(self)

    def __getitem__(self, index: int | slice) -> PairFlow:
        """One pair (N = 1), or a slice of them; IndexError outside of the batch."""
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(f"No pair {index} of {len(self)}.")
            index = slice(index % len(self), index % len(self) + 1)
        shots = len(self.support) // max(len(self), 1)
        start, stop, step = index.indices(len(self))
        if step != 1:
            raise IndexError("A slice of pairs has no step.")
        shares = self.contribution
        return PairFlow(
            self.query[start:stop],
            self.support[start * shots : stop * shots],
            self.similarity[start:stop],
            None if shares is None else shares[start:stop],
        )

    def cpu(self) -> PairFlow:
        """The same with all tensors in main memory."""
        shares = self.contribution
        return PairFlow(self.query.cpu(), self.support.cpu(), self.similarity.cpu(),
                        None if shares is None else shares.cpu())  # fmt: skip

    def save(
        self,
        folder: str | Path,
        query_images: Any,
        support_images: Any,
        *,
        names: Sequence[str] | None = None,
        alpha: float = 0.5,
        colormap: str = "inferno",
        scale: Scale = "map",
        title: str | None = None,
        info: Mapping[str, Any] | None = None,
        on_picture: Callable[[str], None] | None = None,
    ) -> list[Path]:
        """Write `grid.png`, `maps/NNN_<call site>.png` and `flow.json`; gives the N folders.

        The grid has one row an image, the query above its supports, and one column a call site;
        the other pictures show the query at the left.  One pair is written to `folder`, several
        to `folder/000`, `folder/001`, ...; whole or not at all, as `AttentionFlow.save` does.
        For pictures of one image alone: `flow.query.save(...)`.

        Args:
            folder: made if it is not there.
            query_images: N photos, as `AttentionFlow.overlay` takes them; a single one serves
                all pairs.
            support_images: N x shots of them, pair by pair; likewise.
            names: of a pair's rows, the query's first; None: query and support.
            alpha: share of the colours, 0 to 1.
            colormap: "inferno", "magma", "viridis", "jet", "gray".
            scale: as in `AttentionFlow.normalised`, for each image by itself.
            title: heading of the grid, before the similarity.
            info: entries (JSON) that are added to flow.json; "model" and "metric" are shown.
            on_picture: called with each call-site name when its picture is made.

        Raises:
            FlowError: images or names that do not fit.  OSError: nothing can be written there.
        """
        style = Style(alpha, colormap, scale, title, None, info or {}, on_picture)
        return save_pairs(self, Path(folder), query_images, support_images, style, names)


class PairExplainer(Explainer):
    """Explains similarities: ``flow = explainer(query, support)``.

    Made by `naflow_fx.compile` with a `Similarity` as target.  The program's signature is
    ``(query, support)``; what it returns per image holds the queries' rows, then the supports'.
    """

    def forward(self, query: Any, support: Any = None) -> PairFlow:  # type: ignore[override]
        """The flows of both images of every pair.

        Args:
            query: images [N, C, H, W], of the example's size.
            support: what each is compared with, [N, C, H, W]; [N, shots, C, H, W] where the
                similarity has several shots.  A batch of one, here or there, serves all pairs.

        Raises:
            InputError: other shapes, sizes that don't pair up, or a pair whose similarity has no
                explanation: an embedding of zeros, or orthogonal ones (Eq. 18 divides by 0).
        """
        q, s = self._pairs(query, support)
        with torch.no_grad():
            result = self._current(q, s)
        _refuse_zero(result, self._similarity)
        score = result["score"]
        supports = score.repeat_interleave(self._similarity.shots)
        both = self._flow(result)
        return PairFlow(
            _side(both, slice(len(q)), score),
            _side(both, slice(len(q), None), supports),
            result["similarity"],
            result.get("contribution"),
        )

    @property
    def _similarity(self) -> Similarity:
        target = self._job.target
        assert isinstance(target, Similarity)
        return target

    def _pairs(self, query: Any, support: Any) -> tuple[Tensor, Tensor]:
        """Checked, and as many of the one as of the other."""
        dtype, image = self._like().dtype, self._shapes[0]
        shots = self._similarity.shots
        if support is None:
            raise InputError("support: missing; this explainer compares: explainer(query, support)")
        check_image("query", query, image, dtype)
        check_image("support", support, (shots, *image) if shots > 1 else image, dtype)
        count = max(len(query), len(support))
        if not {len(query), len(support)} <= {1, count} or not count:
            raise InputError(f"support: got {len(support)} for {len(query)} queries; wanted as "
                             "many, or one")  # fmt: skip
        return query.expand(count, *query.shape[1:]), support.expand(count, *support.shape[1:])


def _side(flow: AttentionFlow, rows: slice, score: Tensor) -> AttentionFlow:
    """One side's rows of everything that a flow holds per image."""
    values = {name: getattr(flow, name) for name in ("maps", *PARTS)}
    parts = {
        name: type(value)((site, x[rows]) for site, x in value.items())
        for name, value in values.items()
    }
    output = map_tensors(lambda x: x[rows], flow.output)
    return replace(flow, **parts, output=output, score=score)


def _refuse_zero(result: dict[str, Any], target: Similarity) -> None:
    """InputError where Eq. 18's denominator is 0, or not a number."""
    if target.metric != "cosine":
        return
    similarity = result["similarity"]
    bad = (~result["score"].isfinite() | ~similarity.isfinite()).nonzero().flatten().tolist()
    if not bad:
        return
    zero = not bool(similarity[bad[0]].isfinite())
    why = "an embedding is all zero or not finite" if zero else "the embeddings are orthogonal"
    raise InputError(
        f"pairs {bad[:8]}: {why}, so their cosine similarity is "
        f"{'not defined' if zero else '0'} and no channel contributes to it (Eq. 18 divides by 0)"
    )
