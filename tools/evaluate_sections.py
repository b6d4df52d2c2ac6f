"""What `tools/evaluate.py` measures: photos, few photos with slow methods, pictures, sanity."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from onnx_forward import Quick
from torch import nn

import naflow_fx as nf
from naflow_fx.evaluation import sanity
from naflow_fx.evaluation.data import EvaluationSet
from naflow_fx.evaluation.measure import Effort, depth_of
from naflow_fx.evaluation.methods import CHANNELWISE, OF_THE_INPUT, OWN, make
from naflow_fx.evaluation.metrics import DEFAULT
from naflow_fx.evaluation.result import Evaluation
from naflow_fx.evaluation.synthetic import SmallCNN, trained

GRADIENTS = ("focused", "layercam", CHANNELWISE, "hirescam", "gradcam++", "xgradcam", "gradcam")
AT_LAYERS = ("lift-cam", "relevance-cam")
OURS = tuple(name for name in OWN if name.startswith("naflow"))
# seven ends of blocks, at least one in each fifth of the depth
SEVEN = ["stem_act", "blocks.2.add", "blocks.4.add", "blocks.7.add", "blocks.9.add",
         "blocks.11.project_bn", "blocks.15.project_bn"]  # fmt: skip
SEVEN_SMALL = ["0.2", "1.relu", "1.add", "1.relu_1", "2.relu", "2.relu_1", "3.relu_1"]
LAST = "blocks.15.project_bn"
SEED = 2  # of the pictures that are reported; others were used for choosing
LARGE = (*OURS, "focused", "layercam", "gradcam")
EVERYWHERE = ("energy", "pointing", "residual", "fidelity")
AT_SEVEN = tuple(metric for metric in DEFAULT if metric not in EVERYWHERE)


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        full: everything.
        cache: folder of finished parts; None: nothing is kept, all is measured anew.
        limit: images of a section, at most; None: all.
        methods: only these; None: all.
    """

    full: bool = False
    cache: Path | None = None
    limit: int | None = None
    methods: tuple[str, ...] | None = None

    def chosen(self, methods: Sequence[str]) -> list[str]:
        """Those of a section's methods that are to be measured."""
        return [name for name in methods if self.methods is None or name in self.methods]

    @property
    def effort(self) -> Effort:
        """Of the faithfulness metrics."""
        return Effort(steps=10, percentiles=(20, 50, 80), draws=10) if self.full else \
            Effort(steps=5, percentiles=(50,), draws=2)  # fmt: skip


@dataclass(frozen=True)
class Task:
    """One method in one section; what a process of its own needs.

    Attributes:
        plan: how much.
        title: of the section.
        data: what is explained.
        metrics: as `nf.evaluate` takes them.
        model: the network.
        layers: call sites, None for all.
        quick: the network for passes without a gradient.
        depth: call site -> 0 to 1.
        method: its name.
    """

    plan: Plan
    title: str
    data: EvaluationSet
    metrics: Any
    model: nn.Module
    layers: Sequence[str] | None = None
    quick: nn.Module | None = None
    depth: dict[str, float] | None = None
    method: str = ""


Run = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]  # `map`, on several cores


def network() -> nn.Module:
    """The bundled EfficientNet-Lite0."""
    return nf.models.build("efficientnet_lite0", pretrained=True).eval()


def measured(run: Run, task: Task, methods: Sequence[str]) -> Evaluation | None:
    """One section: every method that is wanted, each from the cache where it is there.

    None: none of them is.
    """
    chosen = task.plan.chosen(methods)
    if not chosen:
        return None
    data = task.data[: task.plan.limit]
    sites = nf.compile(task.model, data.images[:1], method="hirescam").layers
    task = replace(task, data=data, depth=depth_of(sites),
                   quick=Quick(task.model, data.images[:1]))  # fmt: skip
    found = run(of_method, [replace(task, method=name) for name in chosen])
    return reduce(Evaluation.merged, map(Evaluation.from_json, found))


def of_method(task: Task) -> Any:
    """An Evaluation of one method, as plain data."""
    started = time.perf_counter()
    name, data, effort = task.method, task.data, task.plan.effort
    metrics = dict.fromkeys(task.metrics) if name in OF_THE_INPUT else task.metrics
    options = repr(OWN.get(name, name))
    key = json.dumps([task.title, options, list(data.names), metrics, task.layers, asdict(effort)])

    def make_it() -> Any:
        model = task.quick if name == "rise" else task.model
        assert model is not None
        explain = make(name, model, data.images[:1], task.layers, metrics)
        return nf.evaluate({name: explain}, data, metrics, model=task.quick, depth=task.depth,
                           effort=effort).to_json()  # fmt: skip

    found = cached(task.plan, key, make_it)
    print(f"{task.title}: {name}, {time.perf_counter() - started:.0f} s", flush=True)
    return found


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


def on_photos(plan: Plan, run: Run) -> Evaluation | None:
    """Every method of this library at every call site of the bundled model, on photos."""
    net, data = network(), nf.photos("check")
    every = nf.compile(net, data.images[:1], method="hirescam").layers
    sites = [s for i, s in enumerate(every) if s in SEVEN or (plan.full and i % 3 == 0)]
    metrics = dict.fromkeys(EVERYWHERE) | dict.fromkeys(AT_SEVEN, sites)
    task = Task(plan, "photos", data, metrics, net)
    return measured(run, task, (*OURS, *GRADIENTS, *(AT_LAYERS if plan.full else ())))


def at_the_end(plan: Plan, run: Run) -> Evaluation | None:
    """Slow methods, and ours, at the last block's end, on few photos."""
    data = nf.photos("check")
    data = data if plan.full else data[::4]
    metrics = ["energy", "pointing", "iou", "best_iou", "insertion", "deletion", "i_d", "drop"]
    task = Task(plan, "last layer", data, metrics, network(), [LAST])
    slow = ("score-cam", "ablation-cam", *AT_LAYERS, *OF_THE_INPUT)
    return measured(run, task, (*slow, *OURS, "focused", "layercam", "gradcam"))


def robust(plan: Plan, run: Run) -> Evaluation | None:
    """ROAD and max-sensitivity, on some photos at some depths."""
    data = nf.photos("check")[:: 2 if plan.full else 3]  # filling gaps takes a second a photo
    task = Task(plan, "robustness", data, ["road", "max_sensitivity"], network(), SEVEN[1::2])
    return measured(run, task, (*OURS, *GRADIENTS[:5], "gradcam"))


def on_pictures(plan: Plan, run: Run) -> Evaluation | None:
    """Every method at every call site of the small CNN, on pictures with known evidence."""
    count = 96 if plan.full else 24
    metrics = dict.fromkeys(EVERYWHERE) | dict.fromkeys(AT_SEVEN, SEVEN_SMALL)
    task = Task(plan, "pictures", nf.synthetic(count, SEED), metrics, trained())
    return measured(run, task, (*OURS, *GRADIENTS, *AT_LAYERS, *OF_THE_INPUT))


def sane(plan: Plan, run: Run) -> dict[str, dict[str, list[list[float]]]]:
    """Sanity checks: check -> method -> rows of (mean, low, high), similarities then energies."""
    pictures, shown = nf.synthetic(24, SEED), nf.photos("check")[:: 1 if plan.full else 6]
    task = Subjects(plan, trained(), trained(shuffled=True), pictures[: plan.limit],
                    network(), shown[: plan.limit])  # fmt: skip
    methods = plan.chosen((*OURS, "focused", "layercam", "hirescam", "gradcam"))
    found = run(sanity_of_method, [replace(task, method=method) for method in methods])
    checks = dict.fromkeys(name for of_method in found for name in of_method)
    return {name: {method: of_method[name]
                   for method, of_method in zip(methods, found, strict=True) if name in of_method}
            for name in checks}  # fmt: skip


@dataclass(frozen=True)
class Subjects:
    """Networks and images of the sanity checks, for one method."""

    plan: Plan
    small: nn.Module
    shuffled: nn.Module
    pictures: EvaluationSet
    large: nn.Module
    photos: EvaluationSet
    method: str = ""


def sanity_of_method(task: Subjects) -> dict[str, Any]:
    """Check -> rows, of one method."""
    method, small, large = task.method, task.small, task.large
    pictures, photos = task.pictures, task.photos

    def of_small(model: nn.Module) -> Any:
        return make(method, model, pictures.images[:1], SEVEN_SMALL)

    def of_large(model: nn.Module) -> Any:
        return make(method, model, photos.images[:1], SEVEN[1::2])

    checks: dict[str, Callable[[], sanity.Sanity]] = {
        "small CNN, weights": lambda: sanity.cascading(of_small, small, pictures),
        "small CNN, labels": lambda: sanity.compared(of_small, small, {"random": task.shuffled},
                                                     pictures),
        "small CNN, class": lambda: sanity.by_class(of_small(small), pictures, 6),
        "Lite0, weights": lambda: sanity.cascading(of_large, large, photos, (0.25, 1.0)),
        "Lite0, class": lambda: sanity.by_class(of_large(large), photos, 1000),
    }  # fmt: skip
    if not (task.plan.full or method in LARGE):
        checks = {name: check for name, check in checks.items() if name.startswith("small")}
    found = {}
    for name, check in checks.items():
        names = [*pictures.names, *photos.names]
        key = json.dumps(["sanity", name, repr(OWN[method]), names])
        found[name] = cached(task.plan, key, lambda c=check: _both(c()))  # type: ignore[misc]
    print(f"sanity: {method}", flush=True)
    return found


def _both(found: sanity.Sanity) -> list[list[list[float]]]:
    """Similarities and energies, as plain data."""
    return [[list(e) for e in found.similarities()], [list(e) for e in found.energies()]]


def accuracy(model: SmallCNN) -> float:
    """Share of new pictures that the small CNN gets right."""
    data = nf.synthetic(600, 77)
    with torch.no_grad():
        return float((model(data.images).argmax(1) == data.target).float().mean())
