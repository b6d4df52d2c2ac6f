"""Is the explanation any good: data with known evidence, metrics, peers.

`evaluate` measures explainers on an `EvaluationSet` and gives an `Evaluation`.  Data:
`photos.photos`, `synthetic.synthetic`, the folders of `adapters`, or your own.  Metrics: the
table in `metrics`.  Other methods: `peers`.  Sanity checks: `sanity`.
"""

from naflow_fx.evaluation.bootstrap import Estimate
from naflow_fx.evaluation.data import EvaluationSet, box_mask, from_boxes, from_masks
from naflow_fx.evaluation.measure import Effort, evaluate
from naflow_fx.evaluation.metrics import METRICS
from naflow_fx.evaluation.quantus import quantus_explain_func
from naflow_fx.evaluation.result import Evaluation

__all__ = [
    "METRICS",
    "Effort",
    "Estimate",
    "Evaluation",
    "EvaluationSet",
    "box_mask",
    "evaluate",
    "from_boxes",
    "from_masks",
    "quantus_explain_func",
]
