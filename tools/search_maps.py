"""Which map is best at every depth?  Measures attempts, and writes docs/better-maps.md.

    python tools/search_maps.py measure --model lite0 --split choose --maps short
    python tools/search_maps.py cost
    python tools/search_maps.py page

`measure` adds a run to docs/better-maps.json: the mean over call sites of each fifth of the depth,
per photo, of energy in the box, pointing game, and insertion minus deletion (I-D).  The sites
are spread evenly: `--sites` in each fifth, without the input, paddings and the last one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from search_maps_cascades import explainer, tail
from search_maps_formulas import SETS, Attempt
from search_maps_models import probability, subject
from search_maps_page import page
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

import naflow_fx as nf
from naflow_fx.evaluation.faithfulness import blurred, insertion_deletion
from naflow_fx.evaluation.localisation import energy, pointing

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "better-maps.json"
FIFTHS = 5
BATCH = 8  # images a forward pass; larger ones take longer each


def main() -> None:
    """One of the two commands."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("measure")
    run.add_argument("--model", choices=("lite0", "lite2", "synthetic"), default="lite0")
    run.add_argument("--split", choices=("choose", "check"), default="choose")
    run.add_argument("--maps", choices=tuple(SETS), default="final")
    run.add_argument("--sites", type=int, default=2, help="call sites in each fifth")
    run.add_argument("--steps", type=int, default=8, help="of insertion and deletion; 0: neither")
    run.add_argument("--count", type=int, default=48, help="pictures of the synthetic set")
    run.set_defaults(run=measure)
    commands.add_parser("cost").set_defaults(run=cost)
    commands.add_parser("page").set_defaults(run=lambda given: page(RESULTS))
    given = parser.parse_args()
    given.run(given)


def measure(given: argparse.Namespace) -> None:
    """Runs every attempt of a set on every image, and stores the means."""
    torch.set_grad_enabled(False)
    model, data = subject(given.model, given.split, given.count)
    sites, last = chosen(model, data.images[:1], given.sites)
    probabilities = probability(model, data.images)
    attempts = SETS[given.maps]
    started, table = time.time(), {a.name: [] for a in attempts}  # type: ignore[var-annotated]
    for i in range(len(data)):
        one = data[i : i + 1]
        base = blurred(one.images)
        for attempt, place, found in maps(model, attempts, sites, last, one.images, one.target):
            values = [energy(found, one.evidence), pointing(found, one.evidence)]  # type: ignore[arg-type]
            if given.steps:
                made = insertion_deletion(
                    probabilities, one.images, one.target, found, given.steps, base, BATCH
                )
                values.append(made["i_d"])
            table[attempt.name].append((i, place, *(float(v) for v in values)))
        print(f"{one.names[0]}  {time.time() - started:.0f} s", flush=True)
        store(given, one.names[0], sites, table, len(data))


def cost(given: argparse.Namespace) -> None:
    """Processor seconds of one photo through EfficientNet-Lite0, all call sites; least of three."""
    model, data = subject("lite0", "choose", 0)
    x = data.images[:1]
    made: dict[str, dict[str, Any]] = {
        'preset="paper"': {}, 'reduction="channelwise"': {"reduction": "channelwise"},
        'preset="best"': {"preset": "best"}, 'method="focused"': {"method": "focused"},
        'method="layercam"': {"method": "layercam"},
    }  # fmt: skip
    ready = {name: nf.compile(model, x, **options) for name, options in made.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ready}
    for _ in range(4):
        for name, explain in ready.items():
            started = time.process_time()
            explain(x)
            seconds[name].append(time.process_time() - started)
    runs = json.loads(RESULTS.read_text())
    runs["cost"] = {name: round(min(values[1:]), 3) for name, values in seconds.items()}
    RESULTS.write_text(json.dumps(runs) + "\n")
    print(runs["cost"])


def maps(
    model: nn.Module,
    attempts: Sequence[Attempt],
    sites: Sequence[str],
    last: str,
    x: Tensor,
    target: Tensor,
) -> Iterator[tuple[Attempt, int, Tensor]]:
    """(attempt, fifth, map) of every attempt and site."""
    values = create_feature_extractor(model, [*sites, last])(x)
    for way in dict.fromkeys((a.inverse, a.cascade) for a in attempts):
        inverse, cascade = way
        if way not in _MADE:
            _MADE[way] = explainer(model, x, inverse, cascade, (*sites, last))
        flow = _MADE[way](x, target=target)
        z = tail(model, x, inverse, last, flow) if cascade == "tail" else flow.bpfm
        focus = flow.maps[last]
        for k, site in enumerate(sites):
            given = flow.importance[site], values[site], z[site], focus
            for attempt in attempts:
                if (attempt.inverse, attempt.cascade) == way:
                    yield attempt, k * FIFTHS // len(sites), attempt(*given)


_MADE: dict[Any, nf.Explainer] = {}  # compiled once


def chosen(model: nn.Module, x: Tensor, each: int) -> tuple[list[str], str]:
    """`each` sites of every fifth, evenly, and the last site."""
    every = nf.compile(model, x, method="layercam").layers
    names = []
    for fifth in range(FIFTHS):
        start, stop = (len(every) * k // FIFTHS for k in (fifth, fifth + 1))
        inner = [s for s in every[start:stop] if s not in (every[0], every[-1])]
        inner = [s for s in inner if not s.endswith("_pad")]
        names += [inner[(2 * k + 1) * len(inner) // (2 * each)] for k in range(each)]
    return names, every[-1]


def store(
    given: argparse.Namespace, photo: str, sites: Sequence[str], table: Any, count: int
) -> None:
    """The run so far, in place of an earlier one of the same command."""
    command = "python tools/" + " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    runs = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    done = 1 + max(row[0] for row in next(iter(table.values())))
    columns = ("energy", "pointing", "i_d")[: 3 if given.steps else 2]
    means = {
        name: {
            metric: [[_mean([r[2 + c] for r in rows if r[:2] == (i, f)]) for f in range(FIFTHS)]
                     for i in range(done)]
            for c, metric in enumerate(columns)
        }
        for name, rows in table.items()
    }  # fmt: skip
    runs[command] = {"model": given.model, "split": given.split, "maps": given.maps,
                     "steps": given.steps, "sites": list(sites), "images": done, "of": count,
                     "values": means}  # fmt: skip
    RESULTS.write_text(json.dumps(runs) + "\n")


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4)


if __name__ == "__main__":
    main()
