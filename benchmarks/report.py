"""docs/benchmarks.md from the JSON files beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.pipeline import LABELS
from benchmarks.subjects import DEFAULT, LAYERCAM, WHOLE

Record = dict[str, Any]
AIM, COMPILED, UNCOMPILED, GRADIENT = 3.0, 8.0, 12.0, 1.0  # x forward + backward
NF_COMPILE, TORCH_COMPILE, MEMORY = 20.0, 120.0, 2.0  # seconds, seconds, x a training step
HEAD = """# Benchmarks

Made by `make bench` (CPU) and `make bench-gpu` (CUDA) from the JSON files beside this page.

Times are ratios to an eager float32 forward pass and backward pass **to the input**, run just
before and just after in the same process, with the same weights and photos: median (quartiles, or
extremes of fewer than four repetitions; n of them). The bundled `efficientnet_lite0` is trained;
`resnet18` and `resnet50` have weights drawn from their names. Peers are called as their
documentation says, with every module whose result is a call site, blocks included, on a model as
it is loaded (in-place ReLUs, parameters that require gradients). A time is that of all these maps,
right or not: read "Right maps" first.
"""


def write_report(docs: Path) -> str:
    """Writes docs/benchmarks.md and returns its text."""
    parts = [HEAD]
    for device in ("cpu", "cuda"):
        path = docs / f"benchmarks-{device}.json"
        if path.exists():
            parts.append("\n".join(_device(device, json.loads(path.read_text()))))
    text = "\n".join(parts) + "\n"
    (docs / "benchmarks.md").write_text(text)
    return text


def _device(device: str, data: Record) -> Iterator[str]:
    sections = data["sections"]
    facts = "; ".join(f"{key} {value}" for key, value in data["machine"].items())
    loads = [record["load"] for record in sections.values()]
    threads = sorted({record["threads"] for record in sections.values()})
    yield f"## {device.upper()}\n\n{facts}.\n"
    yield (f"Measured with {' or '.join(map(str, threads))} threads, load average "
           f"{min(loads):.1f} to {max(loads):.1f}.\n")  # fmt: skip
    if max(loads) > data["machine"]["cores"]:
        yield "Other work kept the cores busy: figures of few repetitions are rough.\n"
    for part in (
        _goals,
        _correctness,
        _speed,
        _compiled,
        _memory,
        _pipeline,
        _count,
        _breakdown,
        _growth,
        _missing,
    ):
        yield from part(sections)


def table(*rows: tuple[Any, ...]) -> Iterator[str]:
    """Rows of markdown, the first one the header; an empty line after."""
    for index, row in enumerate(rows):
        yield "| " + " | ".join(str(cell) for cell in row) + " |"
        if not index:
            yield "|" + "---|" * len(row)
    yield ""


def found(sections: Record, prefix: str) -> Iterator[tuple[list[str], Any]]:
    """The sections that have figures: the rest of their names, the figures."""
    for name, record in sections.items():
        if name.startswith(prefix + "/") and "found" in record:
            yield name.split("/")[1:], record["found"]


def ratio(cell: Record | None) -> str:
    """A ratio with its spread."""
    if cell is None:
        return "-"
    if "error" in cell:
        return f"fails: {cell['error']}"
    spread = f"{cell['low']:.2f} to {cell['high']:.2f}; n {cell['repetitions']}"
    return f"{cell['ratio']:.2f} ({spread})"


def _goals(sections: Record) -> Iterator[str]:
    yield "### Goals\n"
    rows: list[tuple[Any, ...]] = [("goal", "where", "wanted", "measured", "")]
    for (name, batch), cells in found(sections, "speed"):
        for label, cell in cells.items():
            if label.startswith("naflow") and "ratio" in cell:
                value, where = cell["ratio"], f"{name}, batch {batch}, {label}"
                rows.append(("uncompiled", where, f"{UNCOMPILED:.0f} x", f"{value:.2f} x",
                             verdict(value, UNCOMPILED)))  # fmt: skip
    for (name, batch, kind), cells in found(sections, "compiled"):
        if kind == WHOLE:
            continue
        value, where = cells["compiled"]["ratio"], f"{name}, batch {batch}, {kind}"
        limits = [GRADIENT] if kind == LAYERCAM.name else [AIM, COMPILED]
        rows += [("compiled", where, f"{limit:.0f} x", f"{value:.2f} x", verdict(value, limit))
                 for limit in limits]  # fmt: skip
        if name == "resnet50" and kind != LAYERCAM.name:
            took = cells["torch.compile"]
            rows.append(("torch.compile", where, f"{TORCH_COMPILE:.0f} s", f"{took:.0f} s",
                         verdict(took, TORCH_COMPILE)))  # fmt: skip
    for (name,), cells in found(sections, "compile"):
        if name == "resnet50":
            took = min(cells[DEFAULT.name].values())
            rows.append(("nf.compile", name, f"{NF_COMPILE:.0f} s", f"{took:.1f} s",
                         verdict(took, NF_COMPILE)))  # fmt: skip
    for kind, words in (("bytes", ""), ("apart", ", without the heap's holes")):
        steps = dict(_bytes(sections, kind))
        for what in (DEFAULT.name, LAYERCAM.name):
            if what in steps and "training step" in steps:
                value = steps[what] / steps["training step"]
                rows.append((f"peak memory{words}", f"resnet50, batch 8, {what}",
                             f"{MEMORY:.0f} x a training step", f"{value:.2f} x",
                             verdict(value, MEMORY)))  # fmt: skip
    yield from table(*rows)
    yield _bounds(sections)


def verdict(value: float, limit: float) -> str:
    """Met, or by how much not."""
    over = 100 * (value / limit - 1)
    return "met" if over <= 0 else f"missed by {over:.{0 if over >= 1 else 1}f} %"


def _bounds(sections: Record) -> str:
    """What bounds the cost, in the measured figures."""
    parts = []
    for (name,), kinds in found(sections, "breakdown"):
        first, second = list(kinds.items())[:2]
        parts.append(f"{100 * first[1]['share']:.0f} % of {name}'s time is {first[0]}, "
                     f"{100 * second[1]['share']:.0f} % {second[0]}")  # fmt: skip
    for _, cells in found(sections, "products"):
        rate = 1 / cells["bfloat16"]["ratio"]
        each = ", ".join(f"{times / rate:.1f} times in {name}" for name, times in _times(sections))
        parts.append(f"bfloat16 multiplies {rate:.1f} times as fast as float32 here: one "
                     "convolution counted like another, and all of them in bfloat16, the default's "
                     f"take {each} as long as those of forward + backward")  # fmt: skip
    return (
        "What bounds it: a layer that is solved by least squares costs `2 steps` convolutions, "
        "`steps` of them transposed (`tests/test_cost.py` counts them), and a region's layers are "
        "solved again inside it; the vectors between them are scaled, subtracted and normed. "
        + "; ".join(parts) + (". " if parts else "")
        + "What bounds `torch.compile` on a CPU: Inductor writes a C++ file for every distinct "
        "kernel, and g++ compiles each by itself; by default only for the solver's steps.\n"
    )  # fmt: skip


def _times(sections: Record) -> Iterator[tuple[str, float]]:
    """The default's convolutions as a multiple of forward + backward's, by network."""
    for (name,), cells in found(sections, "count"):
        own, default, *_ = cells.values()
        yield name, default / 2 / own


def _correctness(sections: Record) -> Iterator[str]:
    yield "### Right maps\n"
    yield ("Call sites whose map equals the method's published formula on autograd's gradients, "
           "every value out of place, of all call sites.\n")  # fmt: skip
    parts = list(found(sections, "correctness"))
    if not parts:
        return
    labels = list(dict.fromkeys(label for _, cells in parts for label in cells["right"]))
    head = ("", *(f"{name}, {cells['sites']} call sites" for (name,), cells in parts))
    yield from table(head, *((x, *(_right(c["right"].get(x)) for _, c in parts)) for x in labels))
    yield "zennit's attributors return the relevance of the input; none of a call site.\n"


def _right(cell: Record | None) -> str:
    if cell is None:
        return "-"
    return f"fails: {cell['error']}" if "error" in cell else f"{cell['right']}"


def _speed(sections: Record) -> Iterator[str]:
    yield "### Time, uncompiled, and accuracy\n"
    yield ("Accuracy: cosine with the float64 maps converged at damping 0.01 (60 steps), mean and "
           "fifth percentile over call sites and both photos; wanted 0.99 and 0.97.\n")  # fmt: skip
    agreement = {name: cells for (name,), cells in found(sections, "accuracy")}
    for (name, batch), cells in found(sections, "speed"):
        unit = next(c["baseline_seconds"] for c in cells.values() if "ratio" in c)
        yield f"{name}, batch {batch}; the unit is {1000 * unit:.0f} ms\n"
        rows: list[tuple[Any, ...]] = [("", "x forward + backward", "mean", "fifth percentile")]
        for label, cell in cells.items():
            near = agreement.get(name, {}).get(label)
            close = (f"{near['mean']:.4f}", f"{near['low']:.4f}") if near else ("", "")
            rows.append((label, ratio(cell), *close))
        yield from table(*rows)
    made = {name: cells for (name,), cells in found(sections, "compile")}
    if made:
        yield ("`nf.compile`: seconds (of the processor, for all threads, which other processes "
               "do not lengthen):\n")  # fmt: skip
        yield from table(("", *made), *((label, *(_both(c[label]) for c in made.values()))
                                        for label in (DEFAULT.name, LAYERCAM.name)))  # fmt: skip


def _both(cell: Record) -> str:
    return f"{cell['seconds']:.1f} ({cell['processor']:.1f})"


def _compiled(sections: Record) -> Iterator[str]:
    parts = list(found(sections, "compiled"))
    if not parts:
        return
    yield "### Time, compiled\n"
    rows: list[tuple[Any, ...]] = [("", "compiled", "uncompiled, same run", "torch.compile [s]",
                                    "largest difference of a map")]  # fmt: skip
    for (name, batch, kind), cells in parts:
        rows.append((f"{name}, batch {batch}, {kind}", ratio(cells["compiled"]),
                     ratio(cells["uncompiled"]), f"{cells['torch.compile']:.0f}",
                     f"{cells['largest difference']:.0e}"))  # fmt: skip
    yield from table(*rows)


def _bytes(sections: Record, kind: str) -> Iterator[tuple[str, float]]:
    for (name, batch, what), cells in found(sections, "memory"):
        if (name, batch) == ("resnet50", "8") and kind in cells:
            yield what, cells[kind]


def _memory(sections: Record) -> Iterator[str]:
    kinds = {"": dict(_bytes(sections, "bytes"))}
    if "training step" not in kinds[""]:
        return
    yield "### Peak memory, resnet50, batch 8\n"
    yield ("Above the loaded model and images, in a process of its own; uncompiled. Of several "
           "processes the median, the lowest and the highest.\n")  # fmt: skip
    low, high = (dict(_bytes(sections, which)) for which in ("low", "high"))
    apart = dict(_bytes(sections, "apart"))
    if apart.keys() == kinds[""].keys():
        kinds[", without holes"] = apart
        yield ("glibc's heap keeps holes that no later block fits into. Without holes: with "
               "`MALLOC_MMAP_THRESHOLD_=65536`, which gives each block fresh pages, and takes "
               "time.\n")  # fmt: skip
    head, rows = [""], {what: [what] for what in kinds[""]}
    for words, steps in kinds.items():
        head += ["MiB" + words, "x training step" + words]
        for what, row in rows.items():
            share = steps[what] / steps["training step"]
            row += [f"{steps[what] / 2**20:.0f}", f"{share:.2f}"]
    for what, row in rows.items():
        if what in low and what in high:
            row[1] += f" ({low[what] / 2**20:.0f} to {high[what] / 2**20:.0f})"
    yield from table(tuple(head), *map(tuple, rows.values()))


def _pipeline(sections: Record) -> Iterator[str]:
    parts = [(LABELS[engine], cells) for (engine,), cells in found(sections, "pipeline")]
    if not parts:
        return
    yield "### Batch runs, efficientnet_lite0\n"
    yield ("Photos a second of `nf.explain_dataset`, JPEG files to Parquet, as a share of the "
           "explainer's own on batches in memory, just before and after; wanted 0.9. Both have all "
           "cores: one process with a thread a core, or two explainers at the same time with half "
           "of the threads each. 112 pixels, a quarter of the usual work a photo. The first "
           "quarter of a run, in which processes start, is not counted.\n")  # fmt: skip
    rows: list[tuple[Any, ...]] = [("engine", "processes x threads", "share", "photos a second",
                                    "the explainer's own", "device busy")]  # fmt: skip
    rows += [(label, f"{c['processes']} x {c['threads']}", ratio(c),
              f"{c['run photos a second']:.2f}", f"{c['own photos a second']:.2f}",
              f"{100 * c['device busy']:.0f} %") for label, c in parts]  # fmt: skip
    yield from table(*rows)


def _count(sections: Record) -> Iterator[str]:
    parts = {name: cells for (name,), cells in found(sections, "count")}
    if not parts:
        return
    yield "### Convolutions\n"
    yield "In brackets: as a multiple of forward + backward to the input, two for each.\n"
    own = {name: next(iter(cells.values())) for name, cells in parts.items()}
    labels = list(next(iter(parts.values())))
    yield from table(("", *parts), *((label, *(f"{c[label]} ({c[label] / 2 / own[n]:.1f})"
                                               for n, c in parts.items()))
                                     for label in labels))  # fmt: skip


def _breakdown(sections: Record) -> Iterator[str]:
    parts = {name: cells for (name,), cells in found(sections, "breakdown")}
    if not parts:
        return
    yield "### Where the default's time goes, batch 1, uncompiled\n"
    kinds = list(dict.fromkeys(kind for cells in parts.values() for kind in cells))
    rows: list[tuple[Any, ...]] = [("operators", *(f"{n}: share" for n in parts))]
    for kind in kinds:
        cells = [c.get(kind) for c in parts.values()]
        rows.append((kind, *(f"{100 * c['share']:.1f} %" if c else "-"
                             for c in cells)))  # fmt: skip
    yield from table(*rows)


def _growth(sections: Record) -> Iterator[str]:
    parts = list(found(sections, "growth"))
    if not parts:
        return
    yield "### Growth: the default, resnet18, uncompiled\n"
    rows: list[tuple[Any, ...]] = [("batch", "pixels", "x forward + backward", "ms an image",
                                    "ms an image of 224 x 224 pixels")]  # fmt: skip
    for (batch, size), cells in parts:
        cell = cells[DEFAULT.name]
        each = 1000 * cell["seconds"] / int(batch)
        rows.append((batch, f"{size} x {size}", ratio(cell), f"{each:.0f}",
                     f"{each * 224**2 / int(size) ** 2:.0f}"))  # fmt: skip
    yield from table(*rows)


def _missing(sections: Record) -> Iterator[str]:
    left = [(name, record["error"]) for name, record in sections.items() if "error" in record]
    if left:
        yield "### Without a figure\n"
        yield from table(("section", "why"), *left)
