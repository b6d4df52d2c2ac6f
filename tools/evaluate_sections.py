"""What `tools/evaluate.py` measures: photos, few photos with slow methods, pictures, sanity."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import naflow_fx as nf
from naflow_fx.evaluation import sanity
from naflow_fx.evaluation.data import EvaluationSet
from naflow_fx.evaluation.measure import Effort, depth_of
from naflow_fx.evaluation.methods import CHANNELWISE, OF_THE_INPUT, OWN, make
from naflow_fx.evaluation.result import Evaluation
from naflow_fx.evaluation.synthetic import SmallCNN, trained

GRADIENTS = ("layercam", CHANNELWISE, "hirescam", "gradcam++", "xgradcam", "gradcam")
OURS = tuple(name for name in OWN if name.startswith("naflow"))
# seven ends of blocks, at least one in each fifth of the depth
SEVEN = ["stem_act", "blocks.2.add", "blocks.4.add", "blocks.7.add", "blocks.9.add",
         "blocks.11.project_bn", "blocks.15.project_bn"]  # fmt: skip
SEVEN_SMALL = ["0.2", "1.relu", "1.add", "1.relu_1", "2.relu", "2.relu_1", "3.relu_1"]
LAST = "blocks.15.project_bn"
SEED = 2  # of the pictures that are reported; others were used for choosing
LARGE = (*(n for n in OURS if n in ("naflow", "naflow-best")), "layercam", "gradcam")
EVERYWHERE = ("energy", "pointing", "residual")
AT_SEVEN = ("iou", "best_iou", "insertion", "deletion", "i_d", "drop", "increase", "entropy",
            "sparsity")  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        full: everything.
        cache: folder of finished parts; None: nothing is kept, all is measured anew.
        limit: images of a section, at most; None: all.
    """

    full: bool = False
    cache: Path | None = None
    limit: int | None = None

    @property
    def effort(self) -> Effort:
        """Of the faithfulness metrics."""
        return Effort(steps=20, percentiles=(20, 50, 80), draws=10) if self.full else \
            Effort(steps=5, percentiles=(50,), draws=2)  # fmt: skip


def network() -> nn.Module:
    """The bundled EfficientNet-Lite0."""
    return nf.models.build("efficientnet_lite0", pretrained=True).eval()


def measured(
    plan: Plan,
    title: str,
    methods: Sequence[str],
    data: EvaluationSet,
    metrics: Any,
    model: nn.Module,
    layers: Sequence[str] | None = None,
) -> Evaluation:
    """One section: every method, each from the cache where it is there."""  # fmt: skip
    data = data[: plan.limit]
    depth = {"input": 0.0, **depth_of(nf.compile(model, data.images[:1], method="hirescam").layers)}
    result: Evaluation | None = None
    for method in methods:
        started = time.perf_counter()
        options = repr(OWN.get(method, method))
        wanted = dict.fromkeys(metrics) if method in OF_THE_INPUT else metrics
        key = json.dumps([title, options, list(data.names), wanted, layers, asdict(plan.effort)])

        def one(method: str = method, metrics: Any = wanted) -> dict[str, Any]:
            explain = make(method, model, data.images[:1], layers)
            found = nf.evaluate({method: explain}, data, metrics, model=model, depth=depth,
                                effort=plan.effort)  # fmt: skip
            return found.to_json()

        found = Evaluation.from_json(cached(plan, key, one))
        result = found if result is None else result.merged(found)
        print(f"{title}: {method}, {time.perf_counter() - started:.0f} s", flush=True)
    assert result is not None
    return result


def cached(plan: Plan, key: str, make: Callable[[], Any]) -> Any:
    """What `make` gives, as plain data, from the cache if it was made before."""
    if plan.cache is None:
        return make()
    path = plan.cache / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".part")
        aside.write_text(json.dumps(make()))
        aside.replace(path)
    return json.loads(path.read_text())


def on_photos(plan: Plan) -> Evaluation:
    """Every method of this library at every call site of the bundled model, on photos."""
    sites = SEVEN if not plan.full else None
    metrics = dict.fromkeys(EVERYWHERE) | dict.fromkeys(AT_SEVEN, sites)
    return measured(plan, "photos", (*OURS, *GRADIENTS), nf.photos("check"), metrics, network())


def at_the_end(plan: Plan) -> Evaluation:
    """Slow methods, and ours, at the last block's end, on few photos."""
    data = nf.photos("check")
    data = data if plan.full else data[::4]
    metrics = ["energy", "pointing", "iou", "best_iou", "insertion", "deletion", "i_d", "drop"]
    methods = (*OURS, "layercam", "gradcam", "score-cam", "ablation-cam", *OF_THE_INPUT)
    return measured(plan, "last layer", methods, data, metrics, network(), [LAST])


def robust(plan: Plan) -> Evaluation:
    """ROAD and max-sensitivity, on some photos at some depths."""
    data = nf.photos("check")
    sites = SEVEN if plan.full else SEVEN[1::2]
    metrics = ["road", "max_sensitivity"]
    return measured(plan, "robustness", (*OURS, *GRADIENTS[:4], "gradcam"),
                    data if plan.full else data[::3], metrics, network(), sites)  # fmt: skip


def on_pictures(plan: Plan) -> Evaluation:
    """Every method at every call site of the small CNN, on pictures with known evidence."""
    count = 96 if plan.full else 24
    metrics = dict.fromkeys(EVERYWHERE) | dict.fromkeys(AT_SEVEN, SEVEN_SMALL)
    return measured(plan, "pictures", (*OURS, *GRADIENTS, *OF_THE_INPUT),
                    nf.synthetic(count, SEED), metrics, trained())  # fmt: skip


def sane(plan: Plan) -> dict[str, dict[str, list[list[float]]]]:
    """Sanity checks: check -> method -> rows of (mean, low, high), similarities then energies."""
    result: dict[str, dict[str, list[list[float]]]] = {}
    small, pictures = trained(), nf.synthetic(24, SEED)
    shuffled = trained(shuffled=True)
    large, shown = network(), nf.photos("check")[:: 1 if plan.full else 6]
    pictures, shown = pictures[: plan.limit], shown[: plan.limit]
    for method in (*OURS, "layercam", "hirescam", "gradcam"):

        def of_small(model: nn.Module, method: str = method) -> Any:
            return make(method, model, pictures.images[:1], SEVEN_SMALL)

        slow = plan.full or method in LARGE

        def of_large(model: nn.Module, method: str = method) -> Any:
            return make(method, model, shown.images[:1], SEVEN[1::2])

        checks = {
            "small CNN, weights": lambda: sanity.cascading(of_small, small, pictures),  # noqa: B023
            "small CNN, labels": lambda: sanity.compared(of_small, small, {"random": shuffled},  # noqa: B023
                                                         pictures),
            "small CNN, class": lambda: sanity.by_class(of_small(small), pictures, 6),  # noqa: B023
            "Lite0, weights": lambda: sanity.cascading(of_large, large, shown, (0.25, 1.0)),  # noqa: B023
            "Lite0, class": lambda: sanity.by_class(of_large(large), shown, 1000),  # noqa: B023
        }  # fmt: skip
        for name, check in checks.items():
            if name.startswith("Lite0") and not slow:
                continue
            key = json.dumps(["sanity", name, repr(OWN[method]), list(shown.names)])
            result.setdefault(name, {})[method] = cached(plan, key, lambda c=check: _both(c()))
        print(f"sanity: {method}", flush=True)
    return result


def _both(found: sanity.Sanity) -> list[list[list[float]]]:
    """Similarities and energies, as plain data."""
    return [[list(e) for e in found.similarities()], [list(e) for e in found.energies()]]


def accuracy(model: SmallCNN) -> float:
    """Share of new pictures that the small CNN gets right."""
    data = nf.synthetic(600, 77)
    with torch.no_grad():
        return float((model(data.images).argmax(1) == data.target).float().mean())
