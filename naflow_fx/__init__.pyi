# Every public name of `naflow_fx`, once: read by lazy_loader, type checkers and editors.

from . import artefacts as artefacts
from . import models as models
from . import targets as targets
from .compiler import compile as compile
from .dataset.diff import diff as diff
from .dataset.results import Results as Results
from .dataset.results import open_results as open_results
from .dataset.run import DatasetRun as DatasetRun
from .dataset.run import explain_dataset as explain_dataset
from .dataset.spec import ExplainerSpec as ExplainerSpec
from .decomposition import Decomposition as Decomposition
from .decomposition import decompose as decompose
from .errors import NaflowError as NaflowError
from .evaluation import Evaluation as Evaluation
from .evaluation import EvaluationSet as EvaluationSet
from .evaluation import evaluate as evaluate
from .evaluation import quantus_explain_func as quantus_explain_func
from .evaluation.photos import photos as photos
from .evaluation.synthetic import synthetic as synthetic
from .explainer import Explainer as Explainer
from .flow import AttentionFlow as AttentionFlow
from .flow.statistics import Statistics as Statistics
from .flow.statistics import agreement as agreement
from .options import Inverse as Inverse
from .pairs import PairExplainer as PairExplainer
from .pairs import PairFlow as PairFlow
from .pairs.episodes import FewShot as FewShot
from .pairs.episodes import few_shot as few_shot
from .pairs.retrieval import Retrieval as Retrieval
from .pairs.retrieval import retrieve as retrieve
from .rules import register as register
from .rules.contract import Rule as Rule
from .rules.laws import check_rule as check_rule
from .similarity import Similarity as Similarity
from .subjects import Subject as Subject
from .subjects import subject as subject
from .view.colours import show_on_image as show_on_image
from .view.page import ReportEntry as ReportEntry
from .view.page import save_report as save_report

__version__: str
__all__: list[str]
