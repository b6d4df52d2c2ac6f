"""docs/evaluation.md, from the figures in docs/evaluation/*.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from evaluate_sections import LAST, OURS, SEED, SEVEN

from naflow_fx.evaluation import report
from naflow_fx.evaluation.bootstrap import Estimate, estimate
from naflow_fx.evaluation.methods import CHANNELWISE
from naflow_fx.evaluation.metrics import METRICS
from naflow_fx.evaluation.result import Evaluation

RIVALS = ("layercam", "hirescam", CHANNELWISE)
JUDGED = ("energy", "pointing", "i_d")
TEXTS = {
    "naflow": "as the paper prints it, Eq. 2",
    "naflow-channelwise": "the same, cut at 0 per channel",
    "naflow-weighted": "cut per channel, least squares weighted by importance",
    "naflow-best": "`preset=\"best\"`",
    "focused": "`method=\"focused\"`: the preset's map without the inverse",
    CHANNELWISE: "gradient x activation, cut at 0 per channel",
    "hirescam": "gradient x activation, cut after the sum",
}  # fmt: skip

PEERS = {
    "score-cam, ablation-cam": "pytorch-grad-cam",
    "lift-cam": "channels weighted by what captum's DeepLIFT says that they contribute",
    "relevance-cam": "channels weighted by their relevance (z+ rule, other classes taken off), "
                     "zennit",
    "full-grad": "pytorch-grad-cam",
    "integrated-gradients, deep-lift": "captum, from an input of 0",
    "lrp": "zennit, sums shared out",
    "rise": "ours, 500 masks",
}  # fmt: skip
REFUSED = """What the libraries do not do by themselves, and what was done about it
(`pytest tests/test_evaluation_peers.py`):

* captum has no DeepLIFT rule for ReLU6 and takes it for linear, without a word: it is given
  relu(x) - relu(x - 6), which is the same function and has the same multiplier.
* captum replaces the whole gradient of what a ReLU reads, a shortcut's part of it, too: each ReLU
  is given a copy. A module that is called twice it refuses: each call is given a module of its own.
* zennit knows no sum but its own module: each `x + y` is given one. Batch norms are merged.
* pytorch-grad-cam's FullGrad adds up the biases of convolutions and batch norms; what a ReLU6 adds
  where it saturates belongs to none, and is missing from the sum.
* A network with a step that the library has no rule for (a gate, `F.relu`) is refused, by name.
"""


def write(docs: Path) -> Path:
    """Writes the page and its curves; sections without a file are left out."""
    folder = docs / "evaluation"
    found = {p.stem: json.loads(p.read_text()) for p in sorted(folder.glob("*.json"))}
    results = {name: Evaluation.from_json(data) for name, data in found.items() if "scores" in data}
    parts = [HEAD, five_lines(results, found), data_text(results), methods_text()]
    if "photos" in results:
        results["photos"].plot(folder / "photos.png", ("energy", "pointing", "i_d"))
        parts.append(photos_text(results["photos"]))
    if "pictures" in results:
        results["pictures"].plot(folder / "pictures.png", ("energy", "pointing", "i_d"))
        parts.append(pictures_text(results["pictures"]))
    if "last-layer" in results:
        parts.append(last_text(results["last-layer"]))
    if "robustness" in results:
        parts.append(robust_text(results["robustness"]))
    if "sanity" in found:
        parts.append(sanity_text(found["sanity"]["checks"]))
    if "photos" in results:
        parts.append(residual_text(results))
    parts.append(made_text(found))
    path = docs / "evaluation.md"
    path.write_text("\n".join(parts))
    return path


HEAD = """# Is the explanation any good?

`make evaluate` (minutes) or `make evaluate-full` (about an hour and a half on one core; stopped and
started again, it keeps the methods that were finished) writes this page; its last lines tell how it
was made. `naflow-fx evaluate` and `nf.evaluate` measure your own networks and photos the same way.
Brackets are 95 % intervals of a bootstrap that draws photos. Where NAFlow loses, the table says so.
"""


def five_lines(results: dict[str, Evaluation], found: dict[str, Any]) -> str:
    """When to use which, with the figures."""
    photos, pictures = results.get("photos"), results.get("pictures")
    if photos is None or pictures is None:
        return ""
    ours = best_of_ours(photos)
    lines = [
        _first_line(photos, ours),
        _second_line(photos, pictures, ours),
        _third_line(photos) + _class_text(found, ours),
        _fourth_line(photos, ours),
        _fifth_line(photos),
    ]
    return "## In five lines\n\n" + "\n".join(f"* {line}" for line in lines) + "\n"


def best_of_ours(result: Evaluation) -> str:
    """The preset, or else the weighted variant."""
    return "naflow-best" if "naflow-best" in result.methods else "naflow-weighted"


def _first_line(photos: Evaluation, ours: str) -> str:
    energy, rival = photos.mean(ours, "energy").mean, photos.mean("layercam", "energy").mean
    gap = photos.difference(ours, "layercam", "energy")
    word = _verdict(gap, "more of the map lies on the object than of LayerCAM's",
                    "as much of the map lies on the object as of LayerCAM's, within the interval",
                    "less of the map lies on the object than of LayerCAM's")  # fmt: skip
    return (f"`{ours}`, on photos: {word} ({energy:.3f} against {rival:.3f}, difference "
            f"{gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]).")  # fmt: skip


def _second_line(photos: Evaluation, pictures: Evaluation, ours: str) -> str:
    energy, score = photos.mean("focused", "energy").mean, _gap(photos, ours, "focused", "i_d")
    return (f"`method=\"focused\"` is that map without the inverse, at a gradient method's price: "
            f"energy {energy:.3f}, insertion minus deletion of `{ours}` minus its own {score}; on "
            f"pictures with known evidence {_gap(pictures, ours, 'focused', 'energy')} and "
            f"{_gap(pictures, ours, 'focused', 'i_d')}. Take it where time counts. LayerCAM, as "
            f"cheap, is the published choice: `{ours}` minus LayerCAM, insertion minus deletion, "
            f"{_gap(photos, ours, 'layercam', 'i_d')} on photos, energy "
            f"{_gap(pictures, ours, 'layercam', 'energy')} on pictures.")  # fmt: skip


def _gap(result: Evaluation, ours: str, rival: str, metric: str) -> str:
    found = result.difference(ours, rival, metric)
    return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def _third_line(photos: Evaluation) -> str:
    paper, grad = photos.mean("naflow", "energy"), photos.mean("gradcam", "energy")
    layer = photos.mean("layercam", "energy")
    return (f"The paper's form (`preset=\"paper\"`) is far better than Grad-CAM at inner layers, "
            f"as the paper says ({paper.mean:.3f} against {grad.mean:.3f}), and not as good as "
            f"LayerCAM ({layer.mean:.3f}), which the paper did not compare."
            if layer.mean > paper.mean > grad.mean else
            f"The paper's form: {paper.mean:.3f}; Grad-CAM {grad.mean:.3f}; LayerCAM "
            f"{layer.mean:.3f}.")  # fmt: skip


def _class_text(found: dict[str, Any], ours: str) -> str:
    """How much maps depend on the class."""
    if "sanity" not in found:
        return ""
    check = found["sanity"]["checks"]["small CNN, class"]
    alike = {name: check[name][0][0][0] for name in ("naflow", ours, "layercam")}
    return (" To tell classes apart, take it: the rank correlation of its maps with those of "
            f"another class is {alike['naflow']:.2f}, that of `{ours}` {alike[ours]:.2f}, LayerCAM "
            f"{alike['layercam']:.2f} (small CNN).")  # fmt: skip


def _fourth_line(photos: Evaluation, ours: str) -> str:
    first, last = photos.values(ours, "energy", 0), photos.values(ours, "energy", 4)
    rival = photos.values("layercam", "energy", 0), photos.values("layercam", "energy", 4)
    return (f"By depth, energy in the first fifth and the last: {first.mean():.3f} and "
            f"{last.mean():.3f}, LayerCAM {rival[0].mean():.3f} and {rival[1].mean():.3f}. Most of "
            "the gain comes from the gate by the last map, which needs no inverse "
            "([better maps](better-maps.md)).")  # fmt: skip


def _fifth_line(photos: Evaluation) -> str:
    low, high = halves(photos, best_of_ours(photos))
    return ("The residual says how much of what came from above the inverse explains at a site, "
            f"not whether the map is right: energy {low.mean:.3f} where it is below its median, "
            f"{high.mean:.3f} above.")  # fmt: skip


def _verdict(gap: Estimate, more: str, same: str, less: str) -> str:
    return more if gap.low > 0 else less if gap.high < 0 else same


def data_text(results: dict[str, Evaluation]) -> str:
    """What was measured on."""
    lines = ["## Data\n"]
    if "photos" in results:
        found = results["photos"]
        share = 0.0 if found.share is None else float(found.share.mean())
        lines.append(f"* **Photos**: {len(found.images)} photos that the package foolbox ships, "
                     "with boxes drawn by hand (`naflow_fx/evaluation/photo_table.py`); the boxes "
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


def methods_text() -> str:
    """What the names stand for."""
    rows = [["method", "what"]]
    rows += [
        [name, TEXTS[name]] for name in (*OURS, "focused", CHANNELWISE, "hirescam") if name in TEXTS
    ]
    rows.append(["layercam, gradcam, gradcam++, xgradcam", "`method=` of this library, exact at "
                 "every call site"])  # fmt: skip
    rows += [[name, text] for name, text in PEERS.items()]
    return "## Methods\n\n" + report.markdown(rows, right=False) + "\n" + REFUSED


def photos_text(result: Evaluation) -> str:
    """The main tables."""
    ours = best_of_ours(result)
    parts = ["## Photos\n", "Means over call sites and photos:\n",
             report.means(result, ("energy", "pointing", "residual")),
             "Means over those depths:\n", report.means(result, ("i_d", "insertion", "deletion")),
             report.means(result, ("iou", "best_iou", "drop", "increase")),
             report.means(result, ("entropy", "sparsity")),
             "![Energy, pointing game and insertion minus deletion against depth, on photos]"
             "(evaluation/photos.png)\n", depth_tables(result),
             compared_text(result, ours)]  # fmt: skip
    return "\n".join(parts)


def depth_tables(result: Evaluation) -> str:
    """Energy, pointing game and insertion minus deletion by fifths."""
    heads = {"energy": "Energy in the box", "pointing": "Pointing game",
             "i_d": "Insertion minus deletion"}  # fmt: skip
    return "\n".join(f"{text} by depth, first fifth to last:\n\n{report.fifths(result, name)}"
                     for name, text in heads.items())  # fmt: skip


def compared_text(result: Evaluation, ours: str) -> str:
    """Paired differences, and where the method falls short."""
    shown = (*RIVALS, "focused")
    tables = "\n".join(report.differences(result, ours, shown, metric) for metric in JUDGED)
    worse = report.standing(result, ours, RIVALS, JUDGED)
    if worse:
        ending = (f"Of {len(RIVALS) * len(JUDGED) * 5} lower ends against the first three, "
                  f"{len(worse)} are below -0.005: " + "; ".join(worse) + ".")  # fmt: skip
    else:
        ending = "No lower end is below -0.005."
    return ("Paired differences by depth (bold: surely better, †: surely worse; how the preset was "
            "found, and what comes near it without an inverse: [better maps](better-maps.md)):\n\n"
            f"{tables}\n{ending}\n")  # fmt: skip


def pictures_text(result: Evaluation) -> str:
    """The same on pictures with known evidence."""
    return "\n".join([
        "## Pictures with known evidence\n", report.means(result, ("energy", "pointing", "i_d")),
        report.means(result, ("iou", "best_iou", "drop")),
        "![The same curves on pictures with known evidence](evaluation/pictures.png)\n",
        depth_tables(result), compared_text(result, best_of_ours(result)),
    ])  # fmt: skip


def last_text(result: Evaluation) -> str:
    """Slow methods."""
    return "\n".join([
        f"## Slow methods, at `{LAST}`\n",
        f"{len(result.images)} photos; integrated gradients, LRP and RISE are of the input.\n",
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


def made_text(found: dict[str, Any]) -> str:
    """Which command made it, and how long it took."""
    lines = []
    for name, data in found.items():
        facts = data["facts"]
        command = "make evaluate-full" if facts["full"] else "make evaluate"
        if facts.get("limit"):
            command = f"python tools/evaluate.py --sections {name} --limit {facts['limit']}"
        took = "" if facts.get("kept", True) else (
            f", {facts['seconds'] / 60:.1f} minutes, {facts['processes']} processes on "
            f"{facts['cores']} cores")  # fmt: skip
        lines.append(f"* [{name}](evaluation/{name}.json): `{command}`{took}")
    lines.append(
        "* What needs the network's output alone runs by ONNX Runtime, the same to rounding."
    )
    return "## How it was made\n\n" + "\n".join(lines) + "\n"
