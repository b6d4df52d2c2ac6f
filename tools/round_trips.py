"""Whether every format gives the maps of the eager program, and what it costs to make them.

    python tools/round_trips.py [NAME...] [--size 64] [--steps 11] [--layers GLOB...]
        [--formats compiled pt2 aoti onnx]

For each network and format: seconds to write (of `compiled`: of the first call), megabytes,
seconds of one call of two images on one thread, and the largest difference of a map from the
eager program's, relative to the map's largest value, with its call site.  Every file runs in a
process of its own, without this package.  Weights are random, drawn from a seed; the solver
keeps to float32.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import naflow_fx as nf
from naflow_fx import artefacts, models

SIMILARITY = "conv4net, similarity"
NETWORKS = (SIMILARITY, "resnet18", "efficientnet_lite0", "densenet121", "resnet50_cbam")
FORMATS = ("compiled", "pt2", "aoti", "onnx")
RUN = Path(__file__).resolve().parents[1] / "examples" / "run_artefact.py"
COLUMNS = ("network", "size", "sites", "format", "write [s]", "MB", "call [s]", "difference", "at")


def seeded(model: nn.Module) -> nn.Module:
    """The model with batch statistics that keep activations of order one."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            noise = torch.rand(4, module.num_features, generator=generator)
            with torch.no_grad():
                module.weight.copy_(0.6 + 0.3 * noise[0])
                module.bias.copy_(0.2 * noise[1] - 0.1)
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.copy_(0.2 * noise[2] - 0.1)
            module.running_var.copy_(0.8 + 0.5 * noise[3])
    return model


def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    """How long a call takes, and its result."""
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def elsewhere(path: Path, *inputs: Tensor) -> dict[str, Tensor]:
    """The maps that a process without this package gets from an artefact."""
    given, found = path.with_name("inputs.npz"), path.with_name("results.npz")
    np.savez(given, *[x.numpy() for x in inputs])
    command = [sys.executable, "-W", "ignore", str(RUN), str(path), str(given), str(found)]
    subprocess.run(command, check=True)
    with np.load(found) as results:
        return {name[5:]: torch.from_numpy(x) for name, x in results.items() if name[:5] == "maps."}


def largest(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> tuple[float, str]:
    """The largest relative difference of a map, and its call site."""
    assert list(found) == list(wanted)
    rows = {n: float((found[n] - m).abs().max() / m.abs().max().clamp(min=1e-12))
            for n, m in wanted.items()}  # fmt: skip
    worst = max(rows, key=rows.__getitem__)
    return rows[worst], worst


def maps_of(result: Any) -> dict[str, Tensor]:
    """The maps of a flow; of a pair's, the queries' rows, then the supports'."""
    if isinstance(result, nf.AttentionFlow):
        return dict(result.maps)
    sides = (result.query.maps, result.support.maps)
    return {name: torch.cat([side[name] for side in sides]) for name in sides[0]}


def round_trip(
    explainer: nf.Explainer, kind: str, x: Tensor, target: Tensor, folder: Path
) -> tuple[float, float, float, dict[str, Tensor]]:
    """Seconds to write, megabytes, seconds of a call, maps."""
    if kind == "compiled":
        compiled = explainer.compiled()
        first, flow = seconds(lambda: compiled(x, target))
        again, flow = seconds(lambda: compiled(x, target))
        return first, 0.0, again, maps_of(flow)
    path = folder / f"{kind}.{'onnx' if kind == 'onnx' else 'pt2'}"
    write = {"pt2": explainer.export, "aoti": explainer.package, "onnx": explainer.to_onnx}[kind]
    written, _ = seconds(lambda: write(path))
    run = artefacts.load(path, trusted=True).run
    run(x, target)
    call, _ = seconds(lambda: run(x, target))
    return written, path.stat().st_size / 1e6, call, elsewhere(path, x, target)


def rows(name: str, given: argparse.Namespace, folder: Path) -> Iterator[list[str]]:
    """The table's rows of one network."""
    torch.manual_seed(0)
    model = seeded(models.build(name.split(",")[0]))
    size = 224 if name == "resnet50_cbam" else given.size  # its pooling has a fixed size
    x, target = torch.randn(2, 3, size, size), torch.tensor([-1, 3])
    options = {
        "layers": given.layers,
        "inverse": nf.Inverse(steps=given.steps, precision="float32"),
    }
    if name == SIMILARITY:  # called with queries and supports
        options["target"], target = nf.Similarity(), torch.randn(2, 3, size, size)
    compiling, explainer = seconds(lambda: nf.compile(model, x[:1], **options))
    call, result = seconds(lambda: explainer(x, target))
    wanted = maps_of(result)
    head = [name, str(size), str(len(explainer.layers))]
    yield [*head, "eager", f"{compiling:.1f}", "", f"{call:.2f}", "", ""]
    for kind in given.formats:
        written, megabytes, call, maps = round_trip(explainer, kind, x, target, folder)
        difference, site = largest(maps, wanted)
        yield [*head, kind, f"{written:.1f}", f"{megabytes:.0f}", f"{call:.2f}",
               f"{difference:.1e}", site]  # fmt: skip


def main() -> None:
    """Prints one row per network and format, as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=NETWORKS, metavar="NAME")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=nf.Inverse().steps)
    parser.add_argument("--layers", nargs="+")
    parser.add_argument("--formats", nargs="+", default=FORMATS, choices=FORMATS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder  # what was compiled before does not count
        for name in given.names:
            for row in rows(name, given, Path(folder)):
                print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
