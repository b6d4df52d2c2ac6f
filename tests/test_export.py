"""The generated program through torch.compile and torch.export, and away from this package."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from shelf import densenet, fill, hazard, images, network
from torch import Tensor, nn

import naflow_fx as nf
from naflow_fx import models

FEW = nf.Inverse(steps=1, precision="float32")  # every step is written out in what is compiled
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet18": (lambda: network("resnet18", torch.float32), (3, 32, 32)),
    "efficientnet_lite0": (lambda: fill(models.build("efficientnet_lite0")), (3, 32, 32)),
    "densenet": (lambda: densenet().float(), (3, 32, 32)),
    "gate": (lambda: hazard("gate", torch.float32), (3, 12, 12)),
}

LARGE = ("resnet18", "efficientnet_lite0", "densenet")
GIVEN = [pytest.param(n, marks=pytest.mark.slow if n in LARGE else ()) for n in NETWORKS]


def explained(name: str, **options: Any) -> tuple[nn.Module, Tensor, Tensor]:
    build, shape = NETWORKS[name]
    x = images(shape, batch=3, dtype=torch.float32)
    explainer = nf.compile(build(), x, inverse=FEW, **options)
    return explainer.graph_module, x, torch.tensor([-1, 1, 2])


def assert_same(found: Any, wanted: Any) -> None:
    if isinstance(wanted, Mapping):
        assert list(found) == list(wanted)
        for key in wanted:
            assert_same(found[key], wanted[key])
    elif isinstance(wanted, Tensor):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", GIVEN)
def test_torch_compile_takes_the_whole_graph(name: str) -> None:
    program, x, target = explained(name)
    torch.compiler.reset()
    compiled = torch.compile(program, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert_same(compiled(x, target), program(x, target))


@pytest.mark.parametrize("name", GIVEN)
def test_torch_export_takes_it_for_any_batch(name: str) -> None:
    program, x, target = explained(name)
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(program, (x, target), dynamic_shapes=({0: batch}, {0: batch}))
    functions = {str(n.target) for n in exported.graph.nodes if n.op == "call_function"}
    assert not [f for f in functions if "naflow" in f]
    run = exported.module()
    with torch.no_grad():
        for size in (1, 2, 5):
            many = images(NETWORKS[name][1], batch=size, dtype=torch.float32)
            classes = torch.full((size,), -1)
            assert_same(run(many, classes), program(many, classes))


def test_a_compiled_in_target_exports_without_class_indices() -> None:
    build, shape = NETWORKS["gate"]
    x = images(shape, batch=3, dtype=torch.float32)
    explainer = nf.compile(build(), x, target=lambda out: out[:, 1] - out[:, 2])
    exported = torch.export.export(explainer.graph_module, (x,))
    with torch.no_grad():
        assert_same(exported.module()(x), explainer.graph_module(x))


ELSEWHERE = """
import sys, torch
program, inputs, wanted = sys.argv[1:]
x, target = torch.load(inputs)
result = torch.export.load(program).module()(x, target)
assert not [name for name in sys.modules if name.startswith("naflow_fx")]
torch.save({name: x for name, x in result['maps'].items()}, wanted)
"""


@pytest.mark.slow
def test_a_saved_program_runs_without_this_package(tmp_path: Path) -> None:
    program, x, target = explained("gate")
    torch.export.export(program, (x, target))  # of one batch size: the next keeps its own
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(program, (x, target), dynamic_shapes=({0: batch}, {0: batch}))
    torch.export.save(exported, tmp_path / "program.pt2")
    torch.save((x, target), tmp_path / "inputs.pt")
    files = [str(tmp_path / name) for name in ("program.pt2", "inputs.pt", "found.pt")]
    command = [sys.executable, "-W", "ignore", "-c", ELSEWHERE, *files]
    subprocess.run(command, check=True, cwd=tmp_path)
    with torch.no_grad():
        assert_same(torch.load(files[2]), dict(program(x, target)["maps"]))
