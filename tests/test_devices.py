"""Other devices, with none at hand: no tensor is left behind on the CPU, and none is made there.

Programs run on fake tensors of a GPU that nobody has.  They refuse to meet a tensor of the CPU in
every operator, and hold no numbers, so that a run takes a fraction of a second.  `make gpu-check`
asks a real GPU.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from shelf import HAZARDS, class_one, fill, hazard, hazard_images, images, network
from shelf import score_of as score_of_hazard
from test_operators import OPERATORS
from test_operators import network as network_of_operator
from test_other_networks import UNet
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import naflow_fx as nf
from naflow_fx import artefacts, models
from naflow_fx.artefacts import Kind, compiled
from naflow_fx.artefacts.formats import OPENERS
from naflow_fx.dataset.runner import mark, seconds
from naflow_fx.decomposition.program import build_program, lead_back
from naflow_fx.errors import ArtefactError
from naflow_fx.guards.same_model import _tolerance
from naflow_fx.job import Job
from naflow_fx.maps.formulas import METHODS, naflow_sum
from naflow_fx.options import Options
from naflow_fx.passes import trace

INVERSE = nf.Inverse(steps=2, precision="bfloat16")
ALL = ("bpfm", "importance", "used", "neuron_times")
WAYS: dict[str, dict[str, Any]] = {
    "channelwise": {"reduction": "channelwise"},
    "all": {"inverse": nf.Inverse(steps=2, rows="all", precision="float32")},
    "leading": {"inverse": nf.Inverse(steps=2, rows="leading")},
    "undamped": {"inverse": nf.Inverse(damping=0, steps=2)},
    "callable": {"target": class_one},
    **{method: {"method": method} for method in (*METHODS, "focused")},
    "cosine": {"target": nf.Similarity()},
    "dot": {"target": nf.Similarity("dot", "mean")},
    "euclidean": {"target": nf.Similarity("euclidean")},
    "shots": {"target": nf.Similarity(shots=2)},
}
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": lambda: network("resnet18", torch.float32),
    "mobilenet_v3_small": lambda: network("mobilenet_v3_small", torch.float32),
    "efficientnet_lite0": lambda: fill(models.build("efficientnet_lite0")),
    "unet": lambda: fill(UNet()),
}


def of_hazard(name: str, **options: Any) -> tuple[nn.Module, Tensor, dict[str, Any]]:
    given = {"target": score_of_hazard(name)} if name == "two_heads" else {}
    single = torch.float32
    return hazard(name, single), hazard_images(name, dtype=single), {**given, **options}


def of_network(name: str) -> tuple[nn.Module, Tensor, dict[str, Any]]:
    x = images((3, 64, 64), dtype=torch.float32)
    return NETWORKS[name](), x, {"target": _mean} if name == "unet" else {}


def of_operator(name: str) -> tuple[nn.Module, Tensor, dict[str, Any]]:
    return network_of_operator(name), images((3, 6, 6)), {}


def _mean(output: Tensor) -> Tensor:
    return output.mean((1, 2, 3))


SUBJECTS: dict[str, Callable[[], tuple[nn.Module, Tensor, dict[str, Any]]]] = {
    **{name: functools.partial(of_hazard, name, keep=ALL) for name in HAZARDS},
    **{f"{way} of a gate": functools.partial(of_hazard, "gate", **WAYS[way]) for way in WAYS},
    **{name: functools.partial(of_network, name) for name in NETWORKS},
    **{f"operator {name}": functools.partial(of_operator, name) for name in OPERATORS},
}


@functools.cache
def explained(name: str) -> tuple[nf.Explainer, Tensor]:
    """An explainer that was compiled on the CPU, and images for it."""
    model, x, options = SUBJECTS[name]()
    return nf.compile(model, x, **{"inverse": INVERSE, **options}), x


class Guess(TorchDispatchMode):
    """A tensor without numbers that is asked for its own says 0, and is equal to all others."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return False if args[0].dtype == torch.bool else 0
        if func is torch.ops.aten.equal.default:
            return True
        return func(*args, **(kwargs or {}))


class Elsewhere(Guess):  # type: ignore[no-untyped-call]
    """Nothing is made on the CPU either."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_dispatch__(func, types, args, kwargs)
        assert "cpu" not in devices(result), f"{func} makes a tensor on the CPU"
        return result


@contextmanager
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where models and images can be moved to a GPU that nobody has."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    monkeypatch.setattr(trace, "FakeTensorMode", lambda **_: mode)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    with mode:
        yield


def devices(found: Any) -> set[str]:
    """Where all tensors of a result are, those of flows, too."""
    leaves = tree_leaves(found)
    flows = [vars(leaf) for leaf in leaves if isinstance(leaf, nf.AttentionFlow)]
    tensors = [leaf for leaf in tree_leaves((leaves, flows)) if isinstance(leaf, Tensor)]
    return {x.device.type for x in tensors}


def run(explainer: nf.Explainer, x: Tensor) -> Any:
    """The flow of images; of pairs the program's result, of all images with themselves."""
    target = explainer._job.target
    if not isinstance(target, nf.Similarity):
        return explainer(x)
    with torch.no_grad():
        support = x if target.shots == 1 else torch.stack([x] * target.shots, 1)
        return explainer.graph_module(x, support)


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_program_moves_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    explainer, x = explained(name)
    moved = copy.deepcopy(explainer)
    with pretended(monkeypatch):
        moved.to("cuda")
        placed = x.to("cuda")
        with Elsewhere():
            assert devices(run(moved, placed)) == {"cuda"}


@pytest.mark.parametrize("name", [*HAZARDS, "resnet18", "unet"])
def test_a_model_is_compiled_where_it_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, options = SUBJECTS[name]()
    with pretended(monkeypatch), Guess():
        x = x.to("cuda")
        explainer = nf.compile(model.to("cuda"), x, **{"inverse": nf.Inverse(steps=2), **options})
        assert explainer.options.inverse.precision == "bfloat16"
        assert devices(list(explainer.graph_module.buffers())) <= {"cuda"}
        with Elsewhere():
            assert devices(run(explainer, x)) == {"cuda"}


@pytest.mark.parametrize("name", ["gate", "dense_block", "inception"])
def test_a_decomposition_moves_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, _ = of_hazard(name)
    forward, levels = build_program(Job(model, (x[:1],), None, Options()))
    with pretended(monkeypatch), torch.no_grad():
        x, classes = x[:1].to("cuda"), torch.full((1,), -1, device="cuda")
        with Elsewhere():
            found = forward.to("cuda")(x, classes)
            v = found["score"].new_ones(2, 1)
            for level in levels:
                moved = replace(level, program=level.program.to("cuda"))
                v, bias = lead_back(moved, found["values"], v)
                assert devices((found, v, bias)) == {"cuda"}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .pt2 that was written on a CPU."""
    explainer, _ = explained("gate")
    return explainer.export(tmp_path_factory.mktemp("exported") / "gate.pt2")


@pytest.mark.slow
def test_an_exported_program_moves_whole(exported: Path) -> None:
    _, x = explained("gate")
    artefact = artefacts.load(exported, "meta")
    assert devices(artefact.run(x, torch.full((len(x),), -1))) == {"meta"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("kind", ["pt2", "aoti"])
def test_a_file_of_a_device_that_is_not_there(kind: Kind, exported: Path) -> None:
    metadata = replace(artefacts.read(exported), device="cuda", kind=kind)
    with pytest.raises(ArtefactError, match=r"on cuda, and this machine has none; export .*'cpu'"):
        OPENERS[kind](exported, metadata, torch.device("cuda" if kind == "aoti" else "cpu"))


def test_a_moved_explainer_is_compiled_for_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    explainer, x = explained("gate")
    asked = []

    def options(device: str, mode: str | None) -> dict[str, Any]:
        asked.append(device)
        return {}

    monkeypatch.setattr(compiled, "inductor_options", options)
    moved = copy.deepcopy(explainer).to("meta").compiled()
    moved._program(class_one)  # a later target
    assert asked == ["meta", "meta"]


def test_products_in_tf32_make_no_other_model(monkeypatch: pytest.MonkeyPatch) -> None:
    y = torch.ones(2, 3)
    with pretended(monkeypatch):
        assert _tolerance(y.to("cuda")) > 2**-10 > _tolerance(y)


def test_a_batch_run_waits_for_its_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    waited = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            self.stream: Any = None

        def record(self, stream: Any = "the current device's") -> None:
            self.stream = stream

        def synchronize(self) -> None:
            waited.append(self.stream)

        def elapsed_time(self, end: Any) -> float:
            return 5.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"that of {device}")
    begin, end = mark(torch.device("cuda:1")), mark(torch.device("cuda:1"))
    assert seconds(begin, end) == 0.005 and waited == ["that of cuda:1"]


def test_what_stays_behind_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    explainer, x = explained("gate")
    moved = copy.deepcopy(explainer)

    def careless(importance: Tensor, z: Tensor, channel: int, space: tuple[int, ...]) -> Tensor:
        return naflow_sum(importance, z, channel, space) * torch.ones(z.shape[-1])

    graph = moved.graph_module.graph
    graph.find_nodes(op="call_function", target=naflow_sum)[0].target = careless
    moved.graph_module.recompile()
    assert devices(run(moved, x)) == {"cpu"}
    with pretended(monkeypatch), pytest.raises(RuntimeError, match="device"):
        run(moved.to("cuda"), x.to("cuda"))
