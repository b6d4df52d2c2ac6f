"""Right maps, precisions, streams, memory and times of explainers on a device."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import naflow_fx as nf
from benchmarks.gpu_check.lab import (
    BFLOAT16,
    CHANNELWISE,
    NEAR,
    SAME,
    Lab,
    exact,
    explainer,
    maps,
    near,
    network,
    right,
    rows,
    same,
)
from benchmarks.gpu_check.run import Check, Found
from benchmarks.subjects import DEFAULT, FLOAT32, LAYERCAM, Setting, forward_backward, training_step
from benchmarks.timing import interleaved

MEMORY = 1.3  # x a training step
HEAVY, MANY = "resnet50", 8  # whose memory is measured, and on how many photos
TURNS, APART = 3, 1e-5  # of the two streams; of a map's largest value


def checks(lab: Lab) -> Iterator[Check]:
    """What can be asked of explainers as they are."""
    for name in lab.names:
        for setting in (FLOAT32, CHANNELWISE, LAYERCAM):
            for batch in (1, lab.batch):
                run = partial(_maps, lab, name, setting, batch)
                yield Check(f"maps of {name}, {setting.name}, batch {batch}", SAME, run, box=90)
    yield Check("compiled on the CPU, then moved", SAME, partial(_moved, lab))
    for name in lab.names:
        yield Check(f"solver in bfloat16, {name}", NEAR, partial(_low, lab, name))
    for name in lab.names:
        yield Check(f"TF32 allowed, {name}", NEAR, partial(_tf32, lab, name), cuda=True)
    yield Check('what precision="auto" is', "bfloat16 from compute capability 8.0 on",
                partial(_auto, lab), cuda=True)  # fmt: skip
    yield Check("two streams at once", f"within {APART:.0e} of one after the other",
                partial(_streams, lab), cuda=True)  # fmt: skip
    for setting in (DEFAULT, LAYERCAM):
        yield Check(f"peak memory of {HEAVY}, batch {MANY}, {setting.name}",
                    f"at most {MEMORY} x a training step", partial(_memory, lab, setting),
                    cuda=True)  # fmt: skip


def times(lab: Lab) -> Iterator[Check]:
    """Uncompiled, as multiples of forward + backward."""
    for batch in (1, lab.batch):
        for name in lab.names:
            yield Check(f"time of {name}, batch {batch}, uncompiled", "x forward + backward",
                        partial(_times, lab, name, batch), box=40)  # fmt: skip


def _maps(lab: Lab, name: str, setting: Setting, batch: int) -> Found:
    with exact():
        found = maps(explainer(lab, name, setting, lab.device), lab.photos(batch))
    return same(found, rows(right(lab, name, setting), batch))


def _moved(lab: Lab) -> Found:
    name = lab.names[0]
    moved = copy.deepcopy(explainer(lab, name, FLOAT32, "cpu")).to(lab.device)
    with exact():
        return same(maps(moved, lab.photos(lab.batch)), right(lab, name, FLOAT32))


def _low(lab: Lab, name: str) -> Found:
    with exact():
        found = maps(explainer(lab, name, BFLOAT16, lab.device), lab.photos(lab.batch))
    return near(found, right(lab, name, FLOAT32))


def _tf32(lab: Lab, name: str) -> Found:
    flags: Any = torch.backends.cudnn.flags
    with flags(enabled=True, allow_tf32=True):
        found = maps(explainer(lab, name, FLOAT32, lab.device), lab.photos(lab.batch))
    return near(found, right(lab, name, FLOAT32))


def _auto(lab: Lab) -> Found:
    capability = torch.cuda.get_device_capability()
    precision = explainer(lab, lab.names[0], DEFAULT, lab.device).options.inverse.precision
    wanted = "bfloat16" if capability >= (8, 0) else "float32"
    return Found(f"{precision} at {capability[0]}.{capability[1]}", precision == wanted)


def _streams(lab: Lab) -> Found:
    """Two threads, each with a stream of its own and half of the photos, against no stream."""
    explain = explainer(lab, lab.names[0], FLOAT32, lab.device)
    halves = lab.photos(lab.batch).chunk(2)

    def aside(x: Tensor) -> nf.AttentionFlow:
        with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
            return explain(x)

    with exact():
        wanted = [maps(explain, x) for x in halves]
        torch.cuda.synchronize()
        with ThreadPoolExecutor(2) as threads:
            for _ in range(TURNS):
                flows = list(threads.map(aside, halves))
        torch.cuda.synchronize()
    largest = max(
        float((flow.cpu().maps[site] - m).abs().max() / m.abs().max().clamp(min=1e-30))
        for flow, alone in zip(flows, wanted, strict=True)
        for site, m in alone.items()
    )
    return Found(f"{largest:.0e}", largest <= APART)


def _memory(lab: Lab, setting: Setting) -> Found:
    """The peak above the model and the photos; what the explainer holds counts."""
    net, x = network(HEAVY, lab.device), lab.photos(MANY)
    explain, twin = explainer(lab, HEAVY, setting, lab.device), copy.deepcopy(net)
    explain(x)  # the libraries' own workspaces
    training_step(twin, x)
    twin.zero_grad(set_to_none=True)
    step = _peak(partial(training_step, twin, x))
    own = _bytes(explain.graph_module, net)
    taken = own + _peak(partial(explain, x))
    figures = {"bytes": taken, "of constants": own, "training step": step}
    text = f"{taken / step:.2f}: {taken / 2**20:.0f} of {step / 2**20:.0f} MiB"
    return Found(text, taken <= MEMORY * step, figures)


def _peak(run: Callable[[], Any]) -> int:
    """Bytes of the allocator above what was there."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return int(torch.cuda.max_memory_allocated() - before)


def _bytes(module: nn.Module, but: nn.Module) -> int:
    """Bytes of the tensors that a module holds and the other does not."""
    own, others = (
        {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
         for t in (*part.parameters(), *part.buffers())}
        for part in (module, but)
    )  # fmt: skip
    return sum(size for place, size in own.items() if place not in others)


def _times(lab: Lab, name: str, batch: int) -> Found:
    net, x = network(name, lab.device), lab.photos(batch)
    settings = (DEFAULT, FLOAT32, LAYERCAM)
    runs = {s.name: partial(explainer(lab, name, s, lab.device), x) for s in settings}
    return ratios(lab, net, x, runs)


def ratios(lab: Lab, net: nn.Module, x: Tensor, runs: dict[str, Callable[[], Any]]) -> Found:
    """Times of calls, as multiples of forward + backward."""
    budget = 0.5 if lab.quick else 6
    found = interleaved(lambda: forward_backward(net, x), runs, budget)
    return Found(
        "; ".join(f"{name} {_ratio(cell)}" for name, cell in found.items()),
        False if any("error" in cell for cell in found.values()) else None,
        found,
    )


def _ratio(cell: dict[str, Any]) -> str:
    if "error" in cell:
        return str(cell["error"])
    spread = f"{cell['low']:.2f} to {cell['high']:.2f}; n {cell['repetitions']}"
    return f"{cell['ratio']:.2f} ({spread})"
