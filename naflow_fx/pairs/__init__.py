"""Two images in, two attention flows out; embeddings, few-shot classification, retrieval."""

from naflow_fx.pairs.explainer import PairExplainer
from naflow_fx.pairs.flow import PairFlow

__all__ = ["PairExplainer", "PairFlow"]
