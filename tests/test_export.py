"""The generated program compiles, exports with a free batch, and runs without this package."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from shelf import class_one, densenet, fill, hazard, hazard_images, images, network
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

import naflow_fx as nf
from naflow_fx import models


def lite0() -> nn.Module:
    return fill(models.build("efficientnet_lite0", num_classes=10)).float()


ALL: dict[str, Any] = {"inverse": nf.Inverse(steps=2), "keep": ("bpfm", "importance")}
# Of the big networks the last blocks: torch takes a minute for the whole.
RESNET: dict[str, Any] = {"inverse": nf.Inverse(steps=2), "layers": "layer4.*"}
LITE0: dict[str, Any] = {"inverse": nf.Inverse(steps=2), "layers": ["blocks.1[34].*", "head_*"]}
Made = tuple[nn.Module, Tensor, dict[str, Any]]
NETWORKS: dict[str, Callable[[], Made]] = {
    "resnet18": lambda: (network("resnet18", torch.float32), small((3, 64, 64)), RESNET),
    "efficientnet_lite0": lambda: (lite0(), small((3, 64, 64)), LITE0),
    "densenet": lambda: (densenet().float(), small((3, 32, 32)), ALL),
    "gate": lambda: (hazard("gate"), hazard_images("gate", 3), ALL),
    "two_pools": lambda: (hazard("two_pools"), hazard_images("two_pools", 3), ALL),
}


def small(shape: tuple[int, ...]) -> Tensor:
    return images(shape, 3, torch.float32)


@dataclass
class Program:
    """A generated program, a batch of three for it, and its export with a free batch."""

    gm: fx.GraphModule
    inputs: tuple[Tensor, ...]
    exported: torch.export.ExportedProgram


@cache
def program(name: str) -> Program:
    model, x, options = NETWORKS[name]()
    gm = nf.compile(model, x[:2], **options).graph_module
    inputs = (x, torch.tensor([-1, 4, 0]))
    return Program(gm, inputs, export(gm, tuple(value[:2] for value in inputs)))


def export(gm: fx.GraphModule, inputs: tuple[Tensor, ...]) -> torch.export.ExportedProgram:
    free = tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs)
    with torch.no_grad():
        return torch.export.export(gm, inputs, dynamic_shapes=free)


def assert_same(found: Any, wanted: Any) -> None:
    """The same dictionary; numbers within rounding of the largest of their tensor, shares of 1."""
    assert set(found) == set(wanted)
    for key, value in wanted.items():
        if isinstance(value, dict):
            assert list(found[key]) == list(value)
        for a, b in zip(tree_leaves(found[key]), tree_leaves(value), strict=True):
            if b is None:  # no class was explained
                assert a is None
                continue
            assert a.dtype == b.dtype
            scale = float(b.double().abs().max().clamp_min(1e-30)) if key != "residual" else 1
            tolerance = 2e-3 if a.dtype == torch.float32 else 1e-8
            torch.testing.assert_close(a, b, rtol=0, atol=tolerance * scale)


def run(module: Callable[..., Any], inputs: tuple[Tensor, ...]) -> Any:
    with torch.no_grad():
        return module(*inputs)


@pytest.mark.parametrize("name", NETWORKS)
def test_torch_compile_takes_it_as_one_graph(name: str) -> None:
    gm, inputs = program(name).gm, program(name).inputs
    torch.compiler.reset()
    compiled = torch.compile(gm, fullgraph=True, backend="aot_eager")
    assert_same(run(compiled, inputs), run(gm, inputs))


@pytest.mark.parametrize("name", NETWORKS)
def test_torch_export_with_a_free_batch(name: str) -> None:
    made = program(name)
    nodes = made.exported.graph.nodes
    operators = {str(n.target) for n in nodes if n.op == "call_function"}
    assert all(o.startswith(("aten.", "<built-in function", "sym_")) for o in operators)
    for size in (1, 3, 2):
        part = tuple(value[:size] for value in made.inputs)
        assert_same(run(made.exported.module(), part), run(made.gm, part))


READER = """
import sys
import torch
for folder in sys.argv[1:]:
    program = torch.export.load(folder + "/program.pt2").module()
    inputs = torch.load(folder + "/inputs.pt", weights_only=True)
    with torch.no_grad():
        result = program(*inputs)
    result = {k: dict(v) if isinstance(v, dict) else v for k, v in result.items()}
    torch.save(result, folder + "/result.pt")
assert "naflow_fx" not in sys.modules, "the exported program needs this package"
"""


def test_saved_programs_run_in_a_process_without_this_package(tmp_path: Path) -> None:
    names = ["efficientnet_lite0", "densenet", "gate"]
    for name in names:
        (tmp_path / name).mkdir()
        torch.export.save(program(name).exported, tmp_path / name / "program.pt2")
        torch.save(program(name).inputs, tmp_path / name / "inputs.pt")
    (tmp_path / "reader.py").write_text(READER)
    command = [sys.executable, "-I", "reader.py", *names]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in names:
        found = torch.load(tmp_path / name / "result.pt", weights_only=True)
        assert_same(found, run(program(name).gm, program(name).inputs))


def test_a_compiled_in_callable_is_exported_with_it() -> None:
    model, x = hazard("gate"), hazard_images("gate", 3)
    gm = nf.compile(model, x, target=class_one, inverse=nf.Inverse(steps=1)).graph_module
    result, wanted = run(export(gm, (x[:2],)).module(), (x,)), run(gm, (x,))
    assert result["target"] is None and wanted["target"] is None
    assert_same(result, wanted)


@pytest.mark.parametrize("options", [
    {"inverse": nf.Inverse(steps=1, weight="importance")},
    {"inverse": nf.Inverse(steps=1, rows="leading", prior="activation")},
    {"inverse": nf.Inverse(steps=1, damping=0.0), "residual": "capture"},
    {"method": "gradcam++"},
])  # fmt: skip
def test_options_export_too(options: Any) -> None:
    model, x = hazard("in_place"), hazard_images("in_place", 3)
    gm = nf.compile(model, x, **options).graph_module
    inputs = (x, torch.tensor([-1, 4, 0]))
    exported = export(gm, inputs)
    part = tuple(value[:2] for value in inputs)
    assert_same(run(exported.module(), part), run(gm, part))


def test_the_model_itself_may_be_compiled_before() -> None:
    """A torch.compile wrapper is explained as the model that it wraps, under the same names."""
    model, x = hazard("in_place"), hazard_images("in_place")
    wrapped: Any = torch.compile(model, backend="eager")
    flow, wanted = (
        nf.compile(wrapped, x, method="layercam")(x),
        nf.compile(model, x, method="layercam")(x),
    )
    assert list(flow.maps) == list(wanted.maps)
    for a, b in zip(flow.maps.values(), wanted.maps.values(), strict=True):
        torch.testing.assert_close(a, b)


def test_the_program_prints_and_lints() -> None:
    gm = program("gate").gm
    gm.graph.lint()
    for name in ("conv_importance", "relu_mask", "conv_solved", "relu_map"):
        assert f"{name} = " in gm.code, name
    assert len(gm.graph.nodes) < 150  # solver iterations are no nodes of the graph that one reads
