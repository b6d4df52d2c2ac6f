"""docs/better-maps.md from docs/better-maps.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from search_maps_formulas import BEST, CASCADES, FOCUSED, GATES, PEER, REDUCE, SETS

from naflow_fx.evaluation.bootstrap import estimate

METRICS = {"energy": "energy in box", "pointing": "pointing game", "i_d": "I-D"}
ALLOWED = -0.005
NAMES = {FOCUSED.name: "focused"}  # the library's
NOTES = Path(__file__).with_name("search_maps_notes.md")


def page(results: Path) -> None:
    """Writes the page beside the results."""
    runs = json.loads(results.read_text())
    seconds = runs.pop("cost", None)
    final = {c: r for c, r in runs.items() if r["maps"] == "final"}
    tried = {c: r for c, r in runs.items() if r["maps"] != "final"}
    parts = [NOTES.read_text().rstrip(), "## Does it win?", standing(final)]
    parts += ["## Best against its peers", *(gaps(c, r) for c, r in final.items())]
    parts += ["## What it costs", costs(seconds)] if seconds else []
    parts += ["## All that was tried", legend(), *(table(c, r) for c, r in tried.items())]
    results.with_suffix(".md").write_text("\n\n".join(parts) + "\n")


def standing(runs: Mapping[str, Any]) -> str:
    """How many of the fifths pass, by run and metric, against the three published peers."""
    rows = ["| network | images | energy | pointing | I-D |", "|---|---|---|---|---|"]
    for run in runs.values():
        cells = []
        for metric in METRICS:
            found = [d for peer in PEER for d in differences(run, metric)[peer.name]]
            cells.append(f"{sum(d.low >= ALLOWED for d in found)} of {len(found)}")
        rows.append(f"| {run['model']} | {_images(run)} | {' | '.join(cells)} |")
    return "\n".join(rows)


def gaps(command: str, run: Mapping[str, Any]) -> str:
    """Each fifth's difference to each peer, with its interval."""
    rows = [f"### {run['model']}, {_images(run)}\n\n`{command}`, {_sites(run)}.\n",
            "| best minus | metric | fifth 1 | 2 | 3 | 4 | 5 |", "|---" * 7 + "|"]  # fmt: skip
    for metric, title in METRICS.items():
        own = _means(run["values"][BEST.name][metric])
        rows.append(f"| (best itself) | {title} | " + " | ".join(f"{v:.3f}" for v in own) + " |")
        for peer, row in differences(run, metric).items():
            cells = [f"{_bold(d)} [{d.low:+.3f}, {d.high:+.3f}]" for d in row]
            rows.append(f"| {NAMES.get(peer, peer)} | {title} | {' | '.join(cells)} |")
    return "\n".join(rows)


def differences(run: Mapping[str, Any], metric: str) -> dict[str, list[Any]]:
    """Best minus each peer: an estimate for each fifth, images drawn in pairs."""
    best = np.array(run["values"][BEST.name][metric])
    groups = np.arange(len(best))
    found = {}
    for peer in (*PEER, FOCUSED):
        gap = best - np.array(run["values"][peer.name][metric])
        found[peer.name] = [estimate(gap[:, f], groups) for f in range(gap.shape[1])]
    return found


def table(command: str, run: Mapping[str, Any]) -> str:
    """Every attempt of a run, the mean of each fifth and of all, by the mean I-D or energy."""
    columns = [m for m in METRICS if m in next(iter(run["values"].values()))]
    head = [f"{METRICS[m]}, fifths 1 to 5 | mean" for m in columns]
    rows = [f"### {run['model']}, {_images(run)}\n\n`{command}`, {_sites(run)}.\n",
            f"| map | {' | '.join(head)} |", "|---" * (1 + 2 * len(columns)) + "|"]  # fmt: skip
    key = columns[-1] if "i_d" in columns else "energy"
    for name, values in sorted(run["values"].items(), key=lambda v: -np.mean(v[1][key])):
        cells = []
        for metric in columns:
            means = _means(values[metric])
            cells += [" ".join(f"{v:.3f}" for v in means), f"{means.mean():.3f}"]
        shown = f"**{name}**" if name == BEST.name else name
        rows.append(f"| {shown} | {' | '.join(cells)} |")
    return "\n".join(rows)


def costs(seconds: Mapping[str, float]) -> str:
    """Seconds and their ratio to the default's."""
    unit = seconds['preset="paper"']
    rows = ["`python tools/search_maps.py cost`: processor seconds of a photo through the bundled "
            "model, all call sites, one core.\n", "| map | seconds | of the default's |",
            "|---|---|---|"]  # fmt: skip
    rows += [f"| `{name}` | {s:.2f} | {s / unit:.2f} |" for name, s in seconds.items()]
    return "\n".join(rows)


def legend() -> str:
    """What the names of attempts mean."""
    rows = ["L: importance; x: activation; F: the feature node's map, at the site's size.\n",
            "| reduction | over channels |", "|---|---|"]  # fmt: skip
    rows += [f"| {name} | {formula} |" for name, (formula, _) in REDUCE.items()]
    rows += ["", "| gate | map times |", "|---|---|"]
    rows += [f"| {name} | {formula} |" for name, (formula, _) in GATES.items() if name]
    rows += ["", "| cascade | Z |", "|---|---|"]
    rows += [f"| {name} | {text} |" for name, text in CASCADES.items()]
    count = len(SETS["all"])
    rows += ["", f"`--maps all`: {count} attempts; `short`, `final`: some of them; "
             "`cascades`: other ways to Z."]  # fmt: skip
    return "\n".join(rows)


def _means(values: Any) -> Any:
    return np.array(values).mean(0)


def _bold(d: Any) -> str:
    return f"{d.mean:+.3f}" if d.low >= ALLOWED else f"**{d.mean:+.3f}**"


def _images(run: Mapping[str, Any]) -> str:
    kind = "pictures" if run["model"] == "synthetic" else "photos"
    part = "" if run["images"] == run["of"] else f" of {run['of']}"
    return f'{run["images"]}{part} {kind} of the "{run["split"]}" set'


def _sites(run: Mapping[str, Any]) -> str:
    steps = f"{run['steps']} steps of insertion and deletion" if run["steps"] else "no I-D"
    return f"{len(run['sites'])} call sites, {steps}"
