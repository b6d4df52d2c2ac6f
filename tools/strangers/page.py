"""The table as JSON, one network a line, and as a page of markdown."""

from __future__ import annotations

import functools
import importlib.metadata
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .networks import Network, networks

Table = dict[str, dict[str, Any]]
JSON, PAGE = "strangers.json", "strangers.md"
FAULTS = ("wrong", "silent", "raw")


def read(folder: Path) -> Table:
    """The rows that a folder holds, by network."""
    path = folder / JSON
    return json.loads(path.read_text()) if path.exists() else {}


def write(folder: Path, table: Table) -> None:
    """Both files, of the networks in the list, in its order."""
    listed = [n for n in networks() if n.name in table]
    rows = [f"{json.dumps(n.name)}: {json.dumps(table[n.name])}" for n in listed]
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / JSON, "{\n" + ",\n".join(rows) + "\n}\n")
    _replace(folder / PAGE, "\n".join(_page(listed, table)) + "\n")


def _replace(path: Path, text: str) -> None:
    fresh = path.with_suffix(path.suffix + ".part")
    fresh.write_text(text)
    fresh.replace(path)


def _page(listed: list[Network], table: Table) -> list[str]:
    judged = [n for n in listed if table[n.name]["verdict"] != "unbuilt"]  # not ours to judge
    bad = [n for n in judged if table[n.name]["verdict"] in FAULTS]
    return [
        "# Networks of other packages",
        "",
        f"{len(judged)} networks of {len({n.package for n in judged})} packages, with random "
        f"weights; {len(judged) - len(bad)} are explained rightly or refused by name. Made by "
        f"`make strangers` (torch {_version('torch')}).",
        "",
        "Each is compared with hooks on the network itself, in float64: at every module whose "
        "output has batch, channels and space, the importance with autograd's gradient of the "
        "score (the predicted class's logit; the mean of the first channel where the output is "
        "a map).",
        "",
        "* **right**: the largest relative error is at most 1e-9, maps are finite, and where "
        "modules have no site, a warning said so when compiling (last column).",
        "* **refused**: by the error whose first line stands there.",
        "* **wrong**, **silent** (sites missing without a warning), **raw** (another error, or no "
        "end): faults.",
        "",
        *_summary(judged, table),
        *(["", "## Faults", "", *_rows(bad, table)] if bad else []),
        *(line for package in dict.fromkeys(n.package for n in judged)
          for line in ("", f"## {package}", "",
                       *_rows([n for n in judged if n.package == package], table))),
    ]  # fmt: skip


def _summary(judged: list[Network], table: Table) -> list[str]:
    lines = ["| package | version | networks | right | told of missing sites | refused | faults |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for package in dict.fromkeys(n.package for n in judged):
        rows = [table[n.name] for n in judged if n.package == package]
        count = Counter(r["verdict"] for r in rows)
        told = sum(r["verdict"] == "right" and bool(r["missing"]) for r in rows)
        lines.append(f"| {package} | {_version(package)} | {len(rows)} | {count['right']} | {told} "
                     f"| {count['refused']} | {sum(count[k] for k in FAULTS)} |")  # fmt: skip
    return lines


def _rows(listed: list[Network], table: Table) -> list[str]:
    heads = ("network", "input", "verdict", "method", "call sites", "modules", "missing", "error",
             "said")  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for n in listed:
        r = table[n.name]
        error = f"{r['error']:.0e}" if "error" in r else ""
        numbers = [str(r.get(k, "")) for k in ("method", "sites", "hooked", "missing")]
        words = r["words"].replace("|", "\\|")
        lines.append(f"| `{n.call}` | {'x'.join(map(str, n.shape))} | {r['verdict']} | "
                     f"{' | '.join(numbers)} | {error} | {words} |")  # fmt: skip
    return lines


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def _version(package: str) -> str:
    names = _distributions().get(package, [package])
    return importlib.metadata.version(names[0]).split("+")[0]
