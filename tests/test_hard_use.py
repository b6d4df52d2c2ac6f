"""Hard use: thousands of calls, threads, worker processes, copies, other dtypes, global state."""

from __future__ import annotations

import copy
import gc
import io
import itertools
import os
import pickle
import random
import re
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shelf import class_one, hazard, hazard_images
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import naflow_fx as nf

FEW = nf.Inverse(steps=2, precision="float32")
STATM = Path("/proc/self/statm")


def example(name: str = "in_place", dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Tensor]:
    """A network of the shelf and two images for it."""
    return hazard(name, dtype), hazard_images(name, dtype=dtype)


def assert_equal(found: Any, wanted: nf.AttentionFlow) -> None:
    """The same bytes, in every part."""
    assert list(found.maps) == list(wanted.maps) and torch.equal(found.score, wanted.score)
    for part in ("maps", "residual", "norm_ratio", "sigma_max"):
        for name, value in getattr(wanted, part).items():
            assert torch.equal(getattr(found, part)[name], value), (part, name)


# Memory.


def resident() -> int:
    """Bytes of memory of this process."""
    gc.collect()
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def tensors() -> int:
    """Tensors that are alive."""
    gc.collect()
    return sum(issubclass(type(x), Tensor) for x in gc.get_objects())


def growth(call: Callable[[], Any], calls: int) -> tuple[int, int]:
    """Bytes and tensors that are there after so many calls more than after the first 400."""
    for _ in range(400):  # torch's allocator settles
        call()
    gc.collect()  # what other tests left in circles
    alive, before = tensors(), resident()  # in this order: listing all objects takes megabytes
    for _ in range(calls):
        call()
    after = resident()
    return after - before, tensors() - alive


def small_explainer() -> tuple[nf.Explainer, Tensor]:
    """One that answers in a millisecond or so, and images for it."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(),
                          nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))  # fmt: skip
    x = hazard_images("in_place", dtype=torch.float32)
    return nf.compile(model, x, layers="1", inverse=nf.Inverse(steps=1)), x


@pytest.mark.slow
@pytest.mark.skipif(not STATM.exists(), reason="reads /proc")
def test_memory_does_not_grow_over_2000_calls() -> None:
    explainer, x = small_explainer()
    explainer(x, class_one)  # compiled when first asked for, then kept
    targets = itertools.cycle((None, 3, class_one))
    size, count = growth(lambda: explainer(x, next(targets)), 2000)
    assert size < 1_000_000 and count == 0


@pytest.mark.slow
@pytest.mark.skipif(not STATM.exists(), reason="reads /proc")
def test_growth_would_be_noticed() -> None:
    explainer, x = small_explainer()
    kept: list[Any] = []
    assert growth(lambda: kept.append(explainer(x)), 50)[1] >= 50


# Threads.


def in_threads(*work: Callable[[], None]) -> None:
    """Runs functions at the same time; raises what the first of them raised."""
    errors: list[BaseException] = []

    def guarded(one: Callable[[], None]) -> None:
        try:
            one()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(one,)) for one in work]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    if errors:
        raise errors[0]


def test_two_explainers_in_two_threads_and_one_in_both() -> None:
    one, other = (nf.compile(*example(name), inverse=FEW) for name in ("in_place", "gate"))
    x, y = (hazard_images(name, dtype=torch.float32) for name in ("in_place", "gate"))
    wanted, also = one(x), other(y)

    def repeat(explainer: nf.Explainer, images: Tensor, flow: nf.AttentionFlow) -> None:
        for _ in range(10):
            assert_equal(explainer(images), flow)

    in_threads(lambda: repeat(one, x, wanted), lambda: repeat(other, y, also),
               lambda: repeat(one, x, wanted))  # fmt: skip


def test_compiling_in_threads_while_others_run() -> None:
    """Tracing patches nn.Module for all threads; those that don't trace must not notice."""
    (model, x), (gated, y) = example(), example("gate")
    live = nf.compile(model, x, inverse=FEW)
    wanted, also = live(x), nf.compile(gated, y, inverse=FEW)(y)
    outputs = gated.eval()(y)

    def run() -> None:
        for _ in range(15):
            assert_equal(live(x), wanted)
            assert torch.equal(gated(y), outputs)

    def compile_both() -> None:
        for _ in range(2):
            assert_equal(nf.compile(model, x, inverse=FEW)(x), wanted)
            assert_equal(nf.compile(gated, y, inverse=FEW)(y), also)

    call, get = nn.Module.__call__, nn.Module.__getattr__
    in_threads(compile_both, run, compile_both)
    assert nn.Module.__call__ is call and nn.Module.__getattr__ is get


# Processes.


class Explained(Dataset[Tensor]):
    """Images, each with the map of its last layer: what a training loop might feed on."""

    def __init__(self, explainer: nf.Explainer, images: Tensor) -> None:
        self.explainer, self.images = explainer, images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        flow: nf.AttentionFlow = self.explainer(self.images[index : index + 1])
        return next(reversed(flow.maps.values()))[0]


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_in_workers_of_a_data_loader(start: str) -> None:
    model, x = hazard("in_place", torch.float32), hazard_images("in_place", 4, torch.float32)
    explainer = nf.compile(model, x[:1], inverse=FEW)
    data = Explained(explainer, x)
    loader = DataLoader(data, 2, num_workers=2, multiprocessing_context=start, timeout=600)
    found = torch.cat(list(loader))
    torch.testing.assert_close(found, torch.stack([data[i] for i in range(4)]))


def write_maps(rank: int, explainer: nf.Explainer, x: Tensor, folder: str) -> None:
    """What a spawned process does."""
    torch.save(dict(explainer(x[rank : rank + 1]).maps), f"{folder}/{rank}.pt")


@pytest.mark.slow
def test_in_spawned_processes(tmp_path: Path) -> None:
    model, x = example()
    explainer = nf.compile(model, x, inverse=FEW)
    torch.multiprocessing.spawn(  # type: ignore[attr-defined, no-untyped-call]
        write_maps, (explainer, x, str(tmp_path)), nprocs=2
    )
    for rank in range(2):
        for name, value in torch.load(tmp_path / f"{rank}.pt").items():
            torch.testing.assert_close(value, explainer(x[rank : rank + 1]).maps[name])


# Copies.


def by_torch(thing: Any) -> Any:
    """Through torch.save; an explainer holds code, so it is for files that one trusts."""
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
    "torch.save": by_torch,
}


@pytest.mark.parametrize("way", [way for way in COPIES if way != "copy"])
def test_a_copied_explainer_explains_alike(way: str) -> None:
    model, x = example("gate")
    explainer = nf.compile(model, x, inverse=FEW)
    twin = COPIES[way](explainer)
    assert_equal(twin(x), explainer(x))
    assert_equal(twin(x, class_one), explainer(x, class_one))
    assert twin.layers == explainer.layers and twin.options == explainer.options


@pytest.mark.parametrize("way", COPIES)
def test_a_copied_flow_is_whole(way: str) -> None:
    model, x = example("gate")
    flow = nf.compile(model, x, inverse=FEW, keep=("bpfm", "importance"))(x)
    twin = COPIES[way](flow)
    assert_equal(twin, flow)
    assert torch.equal(twin.upsampled()["relu"], flow.upsampled()["relu"])
    assert twin.options == flow.options and list(twin.bpfm) == list(flow.bpfm)


@pytest.mark.parametrize("way", COPIES)
def test_a_copied_decomposition_is_whole(way: str) -> None:
    model, x = example()
    found = nf.decompose(model, x[:1], 1)
    assert COPIES[way](found).to_json() == found.to_json()


# Another dtype.


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_another_dtype_after_compiling(dtype: torch.dtype) -> None:
    model, x = example()
    wanted = nf.compile(model, x, inverse=FEW)(x, 1)
    explainer = nf.compile(model, x, inverse=FEW).to(dtype)
    flow = explainer(x.to(dtype), 1)
    assert {value.dtype for value in flow.maps.values()} == {dtype}
    rtol, atol = (0.1, 0.02) if dtype.itemsize == 2 else (1e-4, 1e-5)
    torch.testing.assert_close(flow.score.float(), wanted.score, rtol=rtol, atol=atol)
    last = next(reversed(flow.maps))
    found = flow.maps[last].float()
    torch.testing.assert_close(found, wanted.maps[last], rtol=rtol, atol=atol)
    assert_equal(explainer.to(torch.float32).to(dtype)(x.to(dtype), 1), flow)


# Determinism and global state.


def test_the_same_bytes_whatever_ran_between() -> None:
    model, x = example()
    explainer = nf.compile(model, x, inverse=FEW)
    first = explainer(x)
    torch.manual_seed(1)
    torch.randn(1000)
    nf.compile(*example("gate"), inverse=FEW)
    assert_equal(explainer(x.clone()), first)
    assert_equal(nf.compile(model, x, inverse=FEW)(x), first)


def global_state() -> dict[str, Any]:
    """What a library could change for everybody."""
    return {
        "generators": (torch.get_rng_state().tolist(), random.getstate(),
                       pickle.dumps(np.random.get_state())),
        "dtype": torch.get_default_dtype(),
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "precision": torch.get_float32_matmul_precision(),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "anomaly": torch.is_anomaly_enabled(),
        "filters": list(warnings.filters),
        "limit": sys.getrecursionlimit(),
        "module": (nn.Module.__call__, nn.Module.__getattr__),
        "folder": os.getcwd(),
        "environment": dict(os.environ),
    }  # fmt: skip


@pytest.mark.parametrize("grad", [True, False])
def test_no_global_state_is_changed(grad: bool, tmp_path: Path) -> None:
    (model, x), wrong = example("gate"), nn.Linear(2, 2)
    with torch.set_grad_enabled(grad):
        before = global_state()
        flow = nf.compile(model, x, inverse=FEW)(x)
        nf.decompose(model, x[:1], 1)
        flow.save(tmp_path / "flow")
        with pytest.raises(nf.NaflowError):
            nf.compile(wrong, x)
        after = global_state()
    for name, value in before.items():
        assert after[name] == value, name


def test_the_docs_name_tests_that_exist() -> None:
    root = Path(__file__).resolve().parents[1]
    named = re.findall(r"`(tests/\w+\.py)::(\w+)`", (root / "docs" / "hard-use.md").read_text())
    assert len(named) > 35
    for file, test in named:
        assert f"def {test}(" in (root / file).read_text(), f"{file}::{test}"
