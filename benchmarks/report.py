"""docs/benchmarks.md from the JSON files beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.pipeline import LABELS
from benchmarks.subjects import DEFAULT, FLOAT32, LAYERCAM, TRAINED

Record = dict[str, Any]
GOALS = {  # x forward + backward: (wanted, hoped for)
    "uncompiled": (6.0, 3.5),
    "uncompiled, rows all": (5.3, 3.5),
    "compiled, bfloat16": (3.0, 2.0),
    "compiled, float32": (4.0, 3.0),
}
ALL_OF_TRAINED = 5.0  # the bundled network's, with rows="all"
GRADIENT, MEMORY = 1.0, 1.3  # x forward + backward, x a training step
NF_COMPILE = {"resnet50": 4.0, TRAINED: 2.5}  # seconds
EXPORT = {"pt2": 30.0, "onnx": 60.0}  # seconds
NO_CLOCK = ("correctness", "count", "accuracy")  # sections whose figures no load changes
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
    timed = [record for name, record in sections.items() if name.split("/")[0] not in NO_CLOCK]
    loads = [record["load"] for record in timed]
    threads = sorted({record["threads"] for record in timed})
    times = sorted(record["at"] for record in timed)
    yield f"## {device.upper()}\n\n{facts}.\n"
    yield (f"Timed from {times[0]} to {times[-1]}, with {' or '.join(map(str, threads))} threads, "
           f"load average {min(loads):.1f} to {max(loads):.1f}.\n")  # fmt: skip
    if max(loads) > data["machine"]["cores"]:
        yield ("Where it is above the number of cores, other work, or the section before, kept "
               "them busy: figures of few repetitions are rough.\n")  # fmt: skip
    units = ("bfloat16 matrix units", "AVX-512 BF16", "accelerator")
    yield from _goals(sections, any(data["machine"].get(unit) for unit in units))
    for part in (
        _correctness,
        _speed,
        _accuracy,
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


def _goals(sections: Record, has_bfloat16: bool) -> Iterator[str]:
    yield "### Goals\n"
    rows: list[tuple[Any, ...]] = [("goal", "where", "wanted", "measured", "")]
    for (name, batch), cells in found(sections, "speed"):
        for label in (FLOAT32.name, "naflow, rows all, float32"):
            cell, kind = cells[label], "uncompiled" + (", rows all" if "all" in label else "")
            wanted = GOALS[kind]
            if kind != "uncompiled" and name == TRAINED:
                wanted = ALL_OF_TRAINED, wanted[1]
            rows += _goal(kind, f"{name}, batch {batch}", wanted, cell["ratio"])
    for (name, batch, label), cells in found(sections, "compiled"):
        value, where = cells["compiled"]["ratio"], f"{name}, batch {batch}"
        if label == LAYERCAM.name:
            rows += _goal("compiled, layercam", where, (GRADIENT,), value)
            continue
        kind = "float32" if label == FLOAT32.name or not has_bfloat16 else "bfloat16"
        rows += _goal(f"compiled, {kind}", where, GOALS[f"compiled, {kind}"], value)
    for (name,), cells in found(sections, "compile"):
        if name in NF_COMPILE:
            took = min(cells[DEFAULT.name].values())
            rows += _goal("nf.compile", name, (NF_COMPILE[name],), took, "s")
    for (name, kind), cells in found(sections, "export"):
        where = f"{kind}, {name} at 64 pixels, every call site"
        rows += _goal("export", where, (EXPORT[kind],), cells["seconds"], "s")
    for kind, words in (("bytes", ""), ("apart", ", without the heap's holes")):
        steps = dict(_bytes(sections, kind))
        for what in (DEFAULT.name, LAYERCAM.name):
            if what in steps and "training step" in steps:
                value = steps[what] / steps["training step"]
                rows += _goal(f"peak memory{words}", f"resnet50, batch 8, {what}", (MEMORY,), value)
    yield from table(*rows)
    yield _bounds(sections)


def _goal(
    kind: str, where: str, limits: tuple[float, ...], value: float, unit: str = "x"
) -> Iterator[tuple[Any, ...]]:
    """A row for what was wanted, and one for what was hoped for."""
    for limit in limits:
        yield kind, where, f"{limit:g} {unit}", f"{value:.2f} {unit}", verdict(value, limit)


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
    alone = [f"{cells['compiled']['ratio']:.2f} times in {name}"
             for (name, _, what), cells in found(sections, "compiled")
             if what == LAYERCAM.name and "compiled" in cells]  # fmt: skip
    if alone:
        parts.append("torch.compile makes convolutions no faster: layercam, the unit's own work "
                     f"and little else, takes {', '.join(alone)} as long compiled as the unit does "
                     "uncompiled")  # fmt: skip
    for _, cells in found(sections, "products"):
        rate = 1 / cells["bfloat16"]["ratio"]
        each = ", ".join(f"{times / rate:.1f} times in {name}" for name, times in _times(sections))
        parts.append(f"bfloat16 multiplies {rate:.1f} times as fast as float32 here: all of them "
                     f"in bfloat16, the multiplications take {each} as long as those of forward + "
                     "backward in float32")  # fmt: skip
    return (
        "What bounds it: forward and importance are the unit itself; each of the three steps of "
        "a least squares is A^T once, each but the last A once (2.5 units), what the fork's Z is "
        "worth inside is half a unit, its constants a quarter; around them vectors are scaled, "
        "subtracted and normed, and laid out channels last. "
        + "; ".join([*parts, "seconds of `nf.compile` and of export are Python's and torch's own "
                     "exporters', and grow with this machine's: ratios don't"]) + ".\n"
    )  # fmt: skip


def _times(sections: Record) -> Iterator[tuple[str, float]]:
    """The multiplications of `FLOAT32` as a multiple of forward + backward's, by network."""
    for (name,), cells in found(sections, "count"):
        yield name, cells[FLOAT32.name]


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
    yield "### Time, uncompiled\n"
    for (name, batch), cells in found(sections, "speed"):
        unit = next(c["baseline_seconds"] for c in cells.values() if "ratio" in c)
        yield f"{name}, batch {batch}; the unit is {1000 * unit:.0f} ms\n"
        rows = [(label, ratio(cell)) for label, cell in cells.items()]
        yield from table(("", "x forward + backward"), *rows)
    made = {name: cells for (name,), cells in found(sections, "compile")}
    if made:
        yield ("`nf.compile`: seconds (of the processor, for all threads, which other processes "
               "do not lengthen):\n")  # fmt: skip
        yield from table(("", *made), *((label, *(_both(c[label]) for c in made.values()))
                                        for label in (DEFAULT.name, LAYERCAM.name)))  # fmt: skip


def _accuracy(sections: Record) -> Iterator[str]:
    parts = list(found(sections, "accuracy"))
    if not parts:
        return
    yield "### Accuracy of three steps, fidelity of Z\n"
    yield (
        "Accuracy: cosine of a map with the float64 map of the same options after 40 steps, over "
        "call sites and both photos; wanted 0.99 in the mean, 0.97 at the fifth percentile. Two "
        "zero maps agree, one of two does not (counted). Fidelity: cosine of Z with the "
        "activation over the neurons that take part, means of each fifth of the depth, first to "
        "last ([why `used` holds more](method.md)).\n"
    )
    head = ("", "pixels", "", "mean", "fifth percentile", "smallest", "zero, one of two",
            "fidelity, by depth")  # fmt: skip
    rows = [
        (name, size, label, f"{c['mean']:.4f}", f"{c['low']:.4f}", f"{c['smallest']:.4f}",
         c["one of two is zero"], " ".join(f"{x:.2f}" for x in c["fidelity"]))
        for (name, size), cells in parts for label, c in cells.items()
    ]  # fmt: skip
    yield from table(head, *rows)


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
    yield "### Multiplications, x forward + backward to the input\n"
    labels = list(next(iter(parts.values())))
    yield from table(("", *parts), *((label, *(f"{c[label]:.2f}" for c in parts.values()))
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
