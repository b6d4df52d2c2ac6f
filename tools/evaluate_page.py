"""docs/evaluation.md, from the figures in docs/evaluation/*.json."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import evaluate_words as words
import numpy as np
from evaluate_differences import differences
from evaluate_sections import LAST, OURS, SEED, SEVEN

from naflow_fx.evaluation import report
from naflow_fx.evaluation.bootstrap import Estimate, estimate
from naflow_fx.evaluation.methods import CHANNELWISE
from naflow_fx.evaluation.metrics import METRICS
from naflow_fx.evaluation.result import Evaluation

RIVALS = ("layercam", "hirescam", CHANNELWISE)
JUDGED = ("energy", "pointing", "i_d")
CURVES = (*JUDGED, "fidelity")


def write(docs: Path) -> Path:
    """Writes the page and its curves; sections without a file are left out."""
    folder = docs / "evaluation"
    found = {p.stem: json.loads(p.read_text()) for p in sorted(folder.glob("*.json"))}
    former = found.pop("former", {})
    results = {name: with_former(data, former.get(name))
               for name, data in found.items() if "scores" in data}  # fmt: skip
    checks = sane(found["sanity"], former.get("sanity")) if "sanity" in found else {}
    for name in {"photos", "pictures"} & set(results):
        results[name].plot(folder / f"{name}.png", CURVES)
    texts = {"photos": photos_text, "pictures": pictures_text, "last-layer": last_text,
             "robustness": robust_text}  # fmt: skip
    commit = former.get("commit", "")
    parts = [words.HEAD, words.in_short(results, checks), data_text(results), words.methods_text(),
             words.changes_text(results, commit), fidelity_text(results)]  # fmt: skip
    parts += [texts[name](results[name]) for name in texts if name in results]
    parts += [sanity_text(checks)] if checks else []
    parts += [words.FOCUSED, residual_text(results), made_text(found, former)]
    path = docs / "evaluation.md"
    path.write_text("\n".join(part for part in parts if part))
    return path


def with_former(data: dict[str, Any], former: dict[str, Any] | None) -> Evaluation:
    """A section's figures, those of the former default beside ours if all images were measured."""
    result = Evaluation.from_json(data)
    if not former or not whole(data):
        return result
    both = result.merged(Evaluation.from_json(former))
    return replace(both, scores=ours_first(both.scores))


def sane(data: dict[str, Any], former: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Check -> method -> rows, likewise."""
    before = former["checks"] if former and whole(data) else {}
    return {check: ours_first({**rows, **before.get(check, {})})
            for check, rows in data["checks"].items()}  # fmt: skip


def ours_first(of_method: dict[str, Any]) -> dict[str, Any]:
    """NAFlow's first, the others in their order."""
    names = sorted(of_method, key=lambda name: not name.startswith("naflow"))
    return {name: of_method[name] for name in names}


def whole(data: dict[str, Any]) -> bool:
    """Whether a section was measured on all images, as the former default was."""
    return bool(data["facts"]["full"]) and not data["facts"].get("limit")


def data_text(results: dict[str, Evaluation]) -> str:
    """What was measured on."""
    lines = ["## Data\n"]
    if "photos" in results:
        found = results["photos"]
        share = 0.0 if found.share is None else float(found.share.mean())
        lines.append(f"* **Photos**: {len(found.images)} photos that the package foolbox ships, "
                     "with boxes drawn by hand (`naflow_fx/evaluation/photos.py`); the boxes "
                     f"cover {share:.2f} of what the network sees, on average. None was used to "
                     "choose anything. The network is the bundled EfficientNet-Lite0.")  # fmt: skip
    if "pictures" in results:
        found = results["pictures"]
        share = 0.0 if found.share is None else float(found.share.mean())
        lines.append(f"* **Pictures**: {len(found.images)} synthetic pictures (seed {SEED}) in "
                     "which the pattern of one shape alone decides the class, on a cluttered "
                     "background, and a small CNN trained on others; the shape covers "
                     f"{share:.2f}.")  # fmt: skip
    lines.append("* Localisation is measured at every call site; what needs the network again, at "
                 f"seven: {', '.join(f'`{name}`' for name in SEVEN)} (`make evaluate-full`: on "
                 "photos at every third call site, too).\n")  # fmt: skip
    table = [["metric", "what", "better"]]
    table += [[name, m.text, m.better or "neither"] for name, m in METRICS.items()]
    return "\n".join(lines) + "\n" + report.markdown(table, right=False)


def fidelity_text(results: dict[str, Evaluation]) -> str:
    """What Z holds of the activation, by depth."""
    parts = ["## What Z still holds of the activation\n",
             "Cosine of Z and the activation over the neurons that take part (`flow.used`), first "
             "fifth of the depth to last:\n"]  # fmt: skip
    for title in ("photos", "pictures"):
        if title in results and "fidelity" in results[title].metrics:
            table = report.fifths(results[title], "fidelity")
            parts.append(table.replace("| fidelity |", f"| {title} |", 1))
    return "\n".join(parts) if len(parts) > 2 else ""


def photos_text(result: Evaluation) -> str:
    """The main tables."""
    parts = ["## Photos\n", "Means over call sites and photos:\n",
             report.means(result, ("energy", "pointing", "residual")),
             "Means over those depths:\n", report.means(result, ("i_d", "insertion", "deletion")),
             report.means(result, ("iou", "best_iou", "drop", "increase")),
             report.means(result, ("entropy", "sparsity")),
             "![Energy, pointing game and insertion minus deletion against depth, on photos]"
             "(evaluation/photos.png)\n", depth_tables(result),
             compared_text(result)]  # fmt: skip
    return "\n".join(parts)


def depth_tables(result: Evaluation) -> str:
    """Energy, pointing game and insertion minus deletion by fifths."""
    heads = {"energy": "Energy in the box", "pointing": "Pointing game",
             "i_d": "Insertion minus deletion"}  # fmt: skip
    return "\n".join(f"{text} by depth, first fifth to last:\n\n{report.fifths(result, name)}"
                     for name, text in heads.items())  # fmt: skip


def compared_text(result: Evaluation) -> str:
    """Paired differences of the focused map, and of the default."""
    pairs = {"focused": RIVALS, "naflow": ("gradcam", "hirescam", "layercam")}
    tables = "\n".join(differences(result, ours, others, metric)
                       for ours, others in pairs.items() for metric in JUDGED)  # fmt: skip
    return f"Paired differences by depth (bold: surely better, †: surely worse):\n\n{tables}\n"


def pictures_text(result: Evaluation) -> str:
    """The same on pictures with known evidence."""
    return "\n".join([
        "## Pictures with known evidence\n", report.means(result, ("energy", "pointing", "i_d")),
        report.means(result, ("iou", "best_iou", "drop")),
        "![The same curves on pictures with known evidence](evaluation/pictures.png)\n",
        depth_tables(result), compared_text(result),
    ])  # fmt: skip


def last_text(result: Evaluation) -> str:
    """Slow methods."""
    return "\n".join([
        f"## Slow methods, at `{LAST}`\n",
        f"{len(result.images)} photos; FullGrad, integrated gradients, DeepLIFT, LRP and RISE "
        "are of the input.\n",
        report.means(result, ("energy", "pointing", "best_iou")),
        report.means(result, ("i_d", "insertion", "deletion", "drop")),
    ])  # fmt: skip


def robust_text(result: Evaluation) -> str:
    """ROAD and max-sensitivity."""
    layers = next(iter(next(iter(result.scores.values())).values())).layers
    return "\n".join([
        "## ROAD and max-sensitivity\n",
        f"{len(result.images)} photos, at {', '.join(f'`{name}`' for name in layers)}.\n",
        report.means(result, ("road", "max_sensitivity")),
    ])  # fmt: skip


def sanity_text(checks: dict[str, dict[str, Any]]) -> str:
    """How alike maps stay."""
    parts = ["## Sanity checks\n",
             "Rank correlation of the maps with those of the trained network, of the right labels, "
             "of the right class; an explainer that ignores the network has 1. Then the energy in "
             "the evidence, before and after.\n"]  # fmt: skip
    for name, of_method in checks.items():
        rows: list[list[str]] = []
        for method, (similar, energy) in of_method.items():
            stages = _stages(name, len(similar))
            head = ["method", *(f"alike, {s}" for s in stages), "energy before",
                    *(f"energy, {s}" for s in stages)]  # fmt: skip
            rows = rows or [head]
            first, *others = (str(Estimate(*e)) for e in energy)
            rows.append([method, *(str(Estimate(*s)) for s in similar), first, *others])
        parts.append(f"{_title(name)}\n\n{report.markdown(rows)}")
    return "\n".join(parts)


def _stages(check: str, count: int) -> list[str]:
    if "weights" in check:
        return ["25 %", "50 %", "75 %", "all"] if count == 4 else ["25 %", "all"]
    return ["random labels"] if "labels" in check else ["another class"]


def _title(check: str) -> str:
    network, what = check.split(", ")
    return (
        f"**{network}**, "
        + {
            "weights": "weights in random order, from the output down:",
            "labels": "a network trained on random labels:",
            "class": "maps of another class, drawn at random:",
        }[what]
    )


def residual_text(results: dict[str, Evaluation]) -> str:
    """What the residual tells of the map."""
    rows = [["", "residual, mean", "energy where it is low", "energy where it is high",
             "rank correlation with the energy"]]  # fmt: skip
    for title in ("photos", "pictures"):
        result = results.get(title)
        for method in OURS if result is not None else ():
            if result is not None and "residual" in result.scores.get(method, {}):
                low, high = halves(result, method)
                rows.append([f"{title}, {method}", str(result.mean(method, "residual")), str(low),
                             str(high), str(correlation(result, method))])  # fmt: skip
    return ("## What the residual tells\n\nCall sites of an image below and above its median "
            "residual, and the rank correlation of residual and energy over the call sites of an "
            f"image:\n\n{report.markdown(rows)}")  # fmt: skip


def _inverted(result: Evaluation, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Residual and energy [L, N] of the call sites that both have, where there is an inverse."""
    residual, energy = result.scores[method]["residual"], result.scores[method]["energy"]
    both = [name for name in residual.layers if name in energy.layers]
    r = residual.values[[residual.layers.index(name) for name in both]]
    e = energy.values[[energy.layers.index(name) for name in both]]
    chosen = r.max(1) > 0
    return r[chosen], e[chosen]


def halves(result: Evaluation, method: str) -> tuple[Estimate, Estimate]:
    """Mean energy of each image's call sites below, and above, its median residual."""
    r, e = _inverted(result, method)
    low = r <= np.median(r, axis=0)
    first, second = (np.where(part, e, 0).sum(0) / part.sum(0) for part in (low, ~low))
    return estimate(first, result.groups), estimate(second, result.groups)


def correlation(result: Evaluation, method: str) -> Estimate:
    """Rank correlation of residual and energy over call sites, mean over images."""
    r, e = (x.argsort(0).argsort(0).astype(float) for x in _inverted(result, method))
    r, e = r - r.mean(0), e - e.mean(0)
    return estimate((r * e).sum(0) / np.sqrt((r**2).sum(0) * (e**2).sum(0)), result.groups)


def made_text(found: dict[str, Any], former: dict[str, Any]) -> str:
    """Which command made it, and how long it took."""
    lines = []
    for name, data in found.items():
        facts = data["facts"]
        command = "`make evaluate-full`" if facts["full"] else "`make evaluate`"
        given = f"{'--full ' if facts['full'] else ''}--sections {name}"
        if facts.get("limit"):
            given += f" --limit {facts['limit']}"
            command = f"`python tools/evaluate.py {given}`"
        if facts.get("methods"):
            given += f" --methods {' '.join(facts['methods'])}"
            command += f", then `python tools/evaluate.py {given}`"
        took = "" if facts.get("kept", True) else (
            f", {facts['seconds'] / 60:.1f} minutes, {facts['processes']} processes on "
            f"{facts['cores']} cores")  # fmt: skip
        lines.append(f"* [{name}](evaluation/{name}.json): {command}{took}")
    names = ", ".join(f"`{name}`" for name in words.FORMER.values())
    if former:
        lines.append(f"* [former](evaluation/former.json): {names}, `{former['command']}` at "
                     f"commit {former['commit']}; their fidelity by `naflow_fx.evaluation."
                     "fidelity`, with that commit's explainers")  # fmt: skip
    lines.append(
        "* What needs the network's output alone runs by ONNX Runtime, the same to rounding."
    )
    return "## How it was made\n\n" + "\n".join(lines) + "\n"
