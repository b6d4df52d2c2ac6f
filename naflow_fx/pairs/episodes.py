"""Few-shot classification by similarity, and why: ``nf.few_shot(encoder, support, query)``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from naflow_fx.compiler import compile
from naflow_fx.errors import InputError
from naflow_fx.pairs.embedding import compare, embed, encoder_of
from naflow_fx.pairs.flow import PairFlow
from naflow_fx.similarity import Similarity

INITIAL_TEMPERATURE = 10.0  # of Meta-Baseline (Chen et al., ICCV 2021), before training


@dataclass(repr=False, eq=False)
class FewShot:
    """The decisions for Q queries, and the flows behind them.

    logits: [Q, way], temperature x similarity to the mean of each class's shots.
    prediction: int64 [Q], the best of `way`.  match: int64 [Q], the class that is explained.
    flow: query i's flow, and those of the shots of class match[i]; None where not asked for.
    """

    logits: Tensor
    prediction: Tensor
    match: Tensor
    flow: PairFlow | None

    def __repr__(self) -> str:
        """One line: queries, way, predictions."""
        return (f"FewShot(queries={len(self.logits)}, way={self.logits.shape[1]}, "
                f"prediction={self.prediction.tolist()})")  # fmt: skip


def few_shot(
    encoder: nn.Module,
    support: Tensor,
    query: Tensor,
    *,
    similarity: Similarity | None = None,
    temperature: float | Tensor = INITIAL_TEMPERATURE,
    match: Tensor | None = None,
    explain: bool = True,
    **options: Any,
) -> FewShot:
    """Classifies queries by the nearest mean of shots, and explains each match.

    Args:
        encoder: images [N, C, H, W] -> embeddings.
        support: [way, shot, C, H, W].
        query: [Q, C, H, W].
        similarity: metric, pool and place of the embedding; None: cosine.  Its `shots` are
            taken from `support`.
        temperature: of the logits, as learned (Meta-Baseline's `temp`).
        match: int64 [Q], the class to explain each query against; None: the predicted one.
        explain: False: logits only.
        options: of `compile`: layers, method, inverse, ...

    Raises:
        InputError: shapes that don't fit together, embeddings of zeros.
    """
    empty = not len(support) or not len(query)
    if support.dim() < 5 or support.shape[2:] != query.shape[1:] or empty:
        raise InputError(f"support: got {list(support.shape)} for queries {list(query.shape)}; "
                         "wanted [way, shot, C, H, W] and [Q, C, H, W]")  # fmt: skip
    way, shots = support.shape[:2]
    chosen = replace(similarity or Similarity(), shots=shots)
    embedder = encoder_of(encoder, query, chosen)
    means = embed(embedder, support.flatten(0, 1)).reshape(way, shots, -1).mean(1)
    logits = compare(embed(embedder, query), means, chosen) * torch.as_tensor(temperature)
    prediction = logits.argmax(1)
    match = prediction if match is None else match
    if match.shape != (len(query),) or int(match.min()) < 0 or int(match.max()) >= way:
        raise InputError(f"match: got {match.tolist()}; wanted {len(query)} classes below {way}")
    flow = None
    if explain:
        explainer = compile(encoder, query, target=chosen, **options)
        matched = support[match]
        flow = explainer(query, matched[:, 0] if shots == 1 else matched)
    return FewShot(logits, prediction, match, flow)
