"""naflow_fx: attention flow through all layers of a trained CNN, compiled into one graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from naflow_fx import models, targets
    from naflow_fx.compiler import compile
    from naflow_fx.dataset.diff import diff
    from naflow_fx.dataset.results import Results, open_results
    from naflow_fx.dataset.run import DatasetRun, explain_dataset
    from naflow_fx.dataset.spec import ExplainerSpec
    from naflow_fx.decomposition import Decomposition, decompose
    from naflow_fx.errors import NaflowError
    from naflow_fx.evaluation import Evaluation, EvaluationSet, evaluate, quantus_explain_func
    from naflow_fx.evaluation.photos import photos
    from naflow_fx.evaluation.synthetic import synthetic
    from naflow_fx.explainer import Explainer
    from naflow_fx.flow import AttentionFlow
    from naflow_fx.flow.statistics import Statistics, agreement
    from naflow_fx.options import Inverse
    from naflow_fx.pairs import PairExplainer, PairFlow
    from naflow_fx.pairs.episodes import FewShot, few_shot
    from naflow_fx.pairs.retrieval import Retrieval, retrieve
    from naflow_fx.rules import register
    from naflow_fx.rules.contract import Rule
    from naflow_fx.rules.laws import check_rule
    from naflow_fx.similarity import Similarity
    from naflow_fx.subjects import Subject, subject
    from naflow_fx.view.colours import show_on_image
    from naflow_fx.view.page import ReportEntry, save_report

_PUBLIC = {
    "AttentionFlow": "naflow_fx.flow",
    "DatasetRun": "naflow_fx.dataset.run",
    "Decomposition": "naflow_fx.decomposition",
    "Evaluation": "naflow_fx.evaluation",
    "EvaluationSet": "naflow_fx.evaluation",
    "Explainer": "naflow_fx.explainer",
    "ExplainerSpec": "naflow_fx.dataset.spec",
    "FewShot": "naflow_fx.pairs.episodes",
    "Inverse": "naflow_fx.options",
    "NaflowError": "naflow_fx.errors",
    "PairExplainer": "naflow_fx.pairs",
    "PairFlow": "naflow_fx.pairs",
    "ReportEntry": "naflow_fx.view.page",
    "Results": "naflow_fx.dataset.results",
    "Retrieval": "naflow_fx.pairs.retrieval",
    "Rule": "naflow_fx.rules.contract",
    "Similarity": "naflow_fx.similarity",
    "Statistics": "naflow_fx.flow.statistics",
    "agreement": "naflow_fx.flow.statistics",
    "Subject": "naflow_fx.subjects",
    "check_rule": "naflow_fx.rules.laws",
    "compile": "naflow_fx.compiler",
    "decompose": "naflow_fx.decomposition",
    "diff": "naflow_fx.dataset.diff",
    "evaluate": "naflow_fx.evaluation",
    "explain_dataset": "naflow_fx.dataset.run",
    "few_shot": "naflow_fx.pairs.episodes",
    "open_results": "naflow_fx.dataset.results",
    "photos": "naflow_fx.evaluation.photos",
    "quantus_explain_func": "naflow_fx.evaluation",
    "register": "naflow_fx.rules",
    "retrieve": "naflow_fx.pairs.retrieval",
    "save_report": "naflow_fx.view.page",
    "show_on_image": "naflow_fx.view.colours",
    "subject": "naflow_fx.subjects",
    "synthetic": "naflow_fx.evaluation.synthetic",
}

__all__ = [
    "AttentionFlow",
    "DatasetRun",
    "Decomposition",
    "Evaluation",
    "EvaluationSet",
    "Explainer",
    "ExplainerSpec",
    "FewShot",
    "Inverse",
    "NaflowError",
    "PairExplainer",
    "PairFlow",
    "ReportEntry",
    "Results",
    "Retrieval",
    "Rule",
    "Similarity",
    "Statistics",
    "Subject",
    "__version__",
    "agreement",
    "check_rule",
    "compile",
    "decompose",
    "diff",
    "evaluate",
    "explain_dataset",
    "few_shot",
    "models",
    "open_results",
    "photos",
    "quantus_explain_func",
    "register",
    "retrieve",
    "save_report",
    "show_on_image",
    "subject",
    "synthetic",
    "targets",
]


def __getattr__(name: str) -> Any:
    """Public names, imported when they are first used: `import naflow_fx` stays light."""
    import importlib

    if name in ("models", "artefacts", "targets"):
        return importlib.import_module(f"naflow_fx.{name}")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'naflow_fx' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
