"""Retrieval and k nearest neighbours by similarity, and why: ``nf.retrieve(encoder, ...)``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from naflow_fx.compiler import compile
from naflow_fx.errors import InputError, unfit
from naflow_fx.pairs.embedding import compare, embed, encoder_of
from naflow_fx.pairs.flow import PairFlow
from naflow_fx.similarity import Similarity
from naflow_fx.view import progress as bars

KNN_TEMPERATURE = 0.07  # of NPID (Wu et al., CVPR 2018), its sigma


@dataclass(repr=False, eq=False)
class Retrieval:
    """The hits of Q queries, best first.

    index: int64 [Q, k], rows of the gallery.  similarity: [Q, k].
    votes: [Q, classes], the sum of exp(similarity / temperature) over the hits of a class, NPID's
    weighted kNN, as shares of their sum; None without labels.  prediction: int64 [Q], its largest.
    """

    index: Tensor
    similarity: Tensor
    votes: Tensor | None
    prediction: Tensor | None
    _explain: Callable[[int, Tensor], PairFlow]

    def __len__(self) -> int:
        """Number Q of queries."""
        return len(self.index)

    def __repr__(self) -> str:
        """One line: queries, hits of the first, its similarities."""
        return (f"Retrieval(queries={len(self)}, first hits={self.index[0].tolist()}, "
                f"similarity={[round(s, 3) for s in self.similarity[0].tolist()]})")  # fmt: skip

    def explain(self, query: int = 0, hits: int | None = None) -> PairFlow:
        """The flows of one query with each of its hits, or with the first `hits` of them.

        Pair i of the result: the query's flow for hit i, and that hit's own.

        Raises:
            InputError: the gallery was given as embeddings, so there are no images.
        """
        return self._explain(query, self.index[query, :hits])


def retrieve(
    encoder: nn.Module,
    query: Tensor,
    gallery: Tensor | Sequence[Any],
    top_k: int = 5,
    *,
    similarity: Similarity | None = None,
    labels: Tensor | None = None,
    temperature: float = KNN_TEMPERATURE,
    block: int = 64,
    progress: bool | None = None,
    **options: Any,
) -> Retrieval:
    """The gallery images that are most alike, by exact search in blocks.

    Args:
        encoder: images [N, C, H, W] -> embeddings.
        query: [Q, C, H, W].
        gallery: images [G, C, H, W], or a sequence of [C, H, W] (a dataset; of pairs with a
            label, the first is taken), or embeddings [G, D] as `pairs.embedding.embed` or a
            memory bank has them.
        top_k: hits per query.
        similarity: metric, pool and place of the embedding; None: cosine.
        labels: int64 [G], classes of the gallery, for the votes.
        temperature: of the votes.
        block: images encoded, and queries compared, at a time.
        progress: a bar on stderr; None: where that is a terminal.
        options: of `compile`, for `Retrieval.explain`.

    Raises:
        InputError: shapes that don't fit, an empty gallery, embeddings of zeros.
    """
    chosen = similarity or Similarity()
    if chosen.shots != 1:
        raise unfit(InputError, "retrieve", "1: a hit is one support image", shots=chosen.shots)
    if not len(query):
        raise InputError(f"query: got no image, {list(query.shape)}; wanted [Q, C, H, W], Q >= 1")
    count = len(gallery)
    if not 1 <= top_k <= count:
        raise unfit(InputError, "retrieve", f"1 to {count}, the images of the gallery", top_k=top_k)
    if labels is not None and labels.shape != (count,):
        raise InputError(f"labels: got {list(labels.shape)} for a gallery of {count}")
    embedder = encoder_of(encoder, query, chosen)
    known = isinstance(gallery, Tensor) and gallery.dim() == 2
    rows: Any = gallery if known else _encode(embedder, gallery, query, block, progress)
    asked = embed(embedder, query, block)
    found = [compare(part, rows.to(part), chosen).topk(top_k, dim=1)
             for part in torch.split(asked, block)]  # fmt: skip
    values, index = map(torch.cat, zip(*found, strict=True))
    explainer = cache(partial(compile, encoder, query, target=chosen, **options))

    def explain(at: int, hits: Tensor) -> PairFlow:
        if known:
            raise InputError("explain: the gallery was given as embeddings; give its images")
        images = torch.stack([_image(gallery, int(i)) for i in hits]).to(query)
        flow: PairFlow = explainer()(query[at : at + 1], images)
        return flow

    votes = None if labels is None else _votes(index, values, labels.to(index.device), temperature)
    return Retrieval(index, values, votes, None if votes is None else votes.argmax(1), explain)


def _encode(
    embedder: nn.Module, gallery: Any, like: Tensor, block: int, progress: bool | None
) -> Tensor:
    """Embeddings of the whole gallery, [G, D]."""
    found: list[Tensor] = []
    with bars.progress(shown=progress) as bar:
        task = bar.add_task("gallery", total=len(gallery))
        for start in range(0, len(gallery), block):
            ids = range(start, min(start + block, len(gallery)))
            images = torch.stack([_image(gallery, i) for i in ids])
            if images.shape[1:] != like.shape[1:]:
                raise InputError(f"gallery: got images {list(images.shape[1:])}; wanted "
                                 f"{list(like.shape[1:])}, as the queries")  # fmt: skip
            found.append(embed(embedder, images.to(like), block))
            bar.advance(task, len(ids))
    return torch.cat(found)


def _image(gallery: Any, index: int) -> Tensor:
    item = gallery[index]
    item = item[0] if isinstance(item, (tuple, list)) else item
    if not isinstance(item, Tensor):
        raise InputError(f"gallery[{index}]: got {type(item).__name__}; wanted a tensor [C, H, W]")
    return item


def _votes(index: Tensor, values: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """[Q, classes]; the largest similarity is taken off before the exponential."""
    weight = ((values - values[:, :1]) / temperature).exp()
    classes = labels[index]
    votes = weight.new_zeros(len(index), int(labels.max()) + 1).scatter_add(1, classes, weight)
    return votes / votes.sum(1, keepdim=True)
