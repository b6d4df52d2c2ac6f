"""flow.json: a flow of one image, or a pair's, as JSON, and the words of the sheets' headings."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from torch import Tensor

from naflow_fx.errors import FlowError
from naflow_fx.flow.data import TRUST, FlowData
from naflow_fx.flow.statistics import measured

ClassNames = Sequence[str] | Mapping[int, str] | None
GRID = "grid.png"
FORMAT = 1  # of flow.json; grows when the meaning of an entry changes
PACKAGES = ("naflow-fx", "torch", "torchvision", "numpy", "pillow")


def answer(flow: FlowData, class_names: ClassNames) -> dict[str, Any]:
    """What a flow of one image (N = 1) says of it: what is explained, its score, the five best.

    class_names: None: those that the flow knows.
    """
    class_names = flow.about.class_names if class_names is None else class_names
    target = explained_class(flow)
    name = None if target is None else class_name(class_names, target)
    return {
        "input_size": list(flow.input_size),
        "score": finite(flow.score),
        "target": target,
        "target_name": name,
        "top5": likeliest(flow, class_names),
    }


def record_of(
    flows: Sequence[FlowData],
    info: Mapping[str, Any],
    answer: Mapping[str, Any],
    files: Mapping[str, str],
    more: Sequence[str] = (),
) -> dict[str, Any]:
    """The contents of flow.json; numbers that are not finite become null.

    flows: of one image each. answer: what is told of all. files: call site -> its picture, of those
    that have one. more: further files.
    """
    layers = [_layer(flows, name, files.get(name)) for name in flows[0].maps]
    return {
        "format": FORMAT,
        **info,
        **answer,
        "options": dict(flows[0].options),
        "layers": layers,
        "files": [GRID, *files.values(), *more],
        "versions": versions(),
    }


def _layer(flows: Sequence[FlowData], name: str, file: str | None) -> dict[str, Any]:
    """One call site's entry; of several flows lists of numbers."""
    rows = [_numbers(flow, name) for flow in flows]
    found = {key: [row[key] for row in rows] for key in rows[0]} if len(rows) > 1 else rows[0]
    return {"name": name, "shape": list(flows[0].maps[name].shape[1:]), **found, "file": file}


def _numbers(flow: FlowData, name: str) -> dict[str, float | None]:
    parts = {part: getattr(flow, part).get(name) for part in TRUST}
    return {key: finite(value) for key, value in {"max": flow.maps[name].max(), **parts}.items()}


def along_depth(flow: FlowData) -> dict[str, dict[str, list[float | None]]]:
    """Measure -> call site -> one number an image, None where there is none.

    "spread", "scatter" and "agreement" of the maps (docs/statistics.md), "residual",
    "norm_ratio", "sigma_max", and "abandoned" (the share of neurons that don't reach the feature
    node) of a flow that was made with ``keep=("used",)``.
    """
    found = measured(flow.maps) | {part: getattr(flow, part) for part in (*TRUST, "abandoned")}
    return {
        measure: {n: [*map(finite, of[n].double().tolist())] for n in flow.maps if n in of}
        for measure, of in found.items()
    }


def explained_class(flow: FlowData) -> int | None:
    """The class that a flow of one image explains; None for a function of the output."""
    return None if flow.target is None or flow.target[0] < 0 else int(flow.target[0])


def likeliest(flow: FlowData, class_names: ClassNames) -> list[dict[str, Any]]:
    """The five likeliest classes with their names and probabilities, None where not finite.

    None at all where the output is not class scores.
    """
    try:
        best = flow.top5()[0]
    except FlowError:
        return []
    return [
        {"class": c, "name": class_name(class_names, c), "probability": finite(p)} for c, p in best
    ]


def class_name(class_names: ClassNames, index: int) -> str | None:
    """The words for a class, None where there are none."""
    if not isinstance(class_names, Mapping):
        class_names = dict(enumerate(() if class_names is None else class_names))
    return class_names.get(index)


def class_words(class_names: ClassNames, index: int) -> str:
    """The same, "class 3" where there are none."""
    return class_name(class_names, index) or f"class {index}"


def shape_text(maps: Tensor) -> str:
    """Size of one map, "14 x 14", or "1 value" for a call site without spatial axes."""
    return " x ".join(map(str, maps.shape[1:])) or "1 value"


def headline(record: Mapping[str, Any]) -> str:
    """The likeliest class and its probability, or nothing."""
    if not record["top5"] or record["top5"][0]["probability"] is None:
        return ""
    best = record["top5"][0]
    return f"{best['name'] or class_words(None, best['class'])} {best['probability']:.1%}"


def details(record: Mapping[str, Any]) -> str:
    """Model, what is explained and the options that matter, separated by " · "."""
    target, name, score = record["target"], record["target_name"], record["score"]
    what = "a function of the output" if target is None else f"class {target} {name or ''}".strip()
    explained = f"explained: {what}" + (f", score {score:.4g}" if score is not None else "")
    model = [str(record["model"])] if record.get("model") else []
    return " · ".join([*model, explained, *option_words(record["options"])])


def option_words(options: Mapping[str, Any]) -> list[str]:
    """The options that matter: the method, and of the one that has an inverse all others."""
    pairs = sorted(_flat(options), key=lambda pair: pair[0] != "method")
    if ("method", "naflow") not in pairs:  # the other methods have no inverse to tell about
        pairs = [pair for pair in pairs if pair[0] == "method"]
    return [f"{key} {value}" for key, value in pairs]


def _flat(options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Options as (name, value), nested ones too, without lists (of layers) and what is unset."""
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _flat(value)
        elif value is not None and not isinstance(value, (list, tuple)):
            yield key, value


def finite(value: Any) -> float | None:
    """A number, or a tensor of one, as JSON holds it: None for NaN, infinities and None."""
    number = math.nan if value is None else float(value)
    return number if math.isfinite(number) else None


def versions() -> dict[str, str]:
    """Versions of what took part, name -> version."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
