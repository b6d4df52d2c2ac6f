"""Similarity: the target of models without a class score (docs/method.md 6, Eqs. 17 to 21)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from naflow_fx.errors import TargetError, check_choice, check_positive, one_of, unfit

Metric = Literal["cosine", "dot", "euclidean"]
Pool = Literal["flatten", "mean"]
PENULTIMATE = "penultimate"


@dataclass(frozen=True)
class Similarity:
    """Why are two images alike?  ``nf.compile(encoder, example, target=nf.Similarity())``.

    Both images pass through the same encoder; the score is a similarity of their embeddings
    ``v_Q`` and ``v_S``, and each image's importance holds the other's embedding constant.  A final
    L2 normalisation of the encoder is recognised and its norm held constant: through it the
    gradient would be orthogonal to the embedding.

    Attributes:
        metric: "cosine": the sum of ``omega_d = vQ_d vS_d / |sum_d vQ_d vS_d|`` (Eqs. 17, 18),
            +1 or -1, its denominator held constant (differentiated, the importance would be 0);
            "dot": the sum of ``vQ_d vS_d``; "euclidean": minus the squared distance; or a
            callable of two embeddings [N, D] that gives [N], without control flow on tensors.
        pool: of an encoder that returns a feature map [N, C, ...space]: "flatten", or the "mean"
            over space.  Embeddings [N, D] stay as they are.
        at: where the embedding is: None, the encoder's output; the name of a call site, as
            torchvision's feature extraction names it; or "penultimate", what the last fully
            connected layer of a classifier reads.
        shots: support images per query; their embeddings are averaged (few-shot learning).
    """

    metric: Metric | Callable[[Tensor, Tensor], Tensor] = "cosine"
    pool: Pool = "flatten"
    at: str | None = None
    shots: int = 1

    def __post_init__(self) -> None:
        """TargetError: a value that does not exist."""
        if not callable(self.metric) and self.metric not in get_args(Metric):
            wanted = f"{one_of(get_args(Metric))}, or a callable"
            raise unfit(TargetError, "Similarity", wanted, metric=self.metric)
        check_choice(TargetError, "Similarity", get_args(Pool), pool=self.pool)
        check_positive(TargetError, "Similarity", shots=self.shots)

    @property
    def images_per_sample(self) -> int:
        """Images that one pair takes in the encoder's batch: the query and its supports."""
        return 1 + self.shots
