"""PairExplainer: two images in, two attention flows out: why are they alike?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from naflow_fx.errors import InputError
from naflow_fx.explainer import Explainer, check_image
from naflow_fx.pairs.flow import PairFlow
from naflow_fx.similarity import Similarity


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
        score = result["score"]  # of a pair; of each of its images it is the same
        scores = torch.cat([score, score.repeat_interleave(self._similarity.shots)])
        both = replace(self._flow(result), score=scores)
        return PairFlow(
            both[: len(q)], both[len(q) :], result["similarity"], result.get("contribution")
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
    raise InputError(f"pairs {bad[:8]}: {why}, so no channel contributes to their cosine "
                     "similarity (Eq. 18 divides by 0)")  # fmt: skip
