"""A module's call site has exactly its path; numbers are for functions and later calls."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import naflow_fx as nf
from naflow_fx import keys
from naflow_fx.errors import InputError, TraceError
from naflow_fx.passes.trace import trace

METHOD: Any = "hirescam"


class Numbered(nn.Module):
    """Modules whose names look like repeated calls, one of them called twice, out of order."""

    def __init__(self) -> None:
        super().__init__()
        self.c3x3_1, self.c3x3_2 = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1)
        self.relu_1, self.relu = nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.relu(self.c3x3_1(x)))
        x = self.relu_1(self.c3x3_2(self.c3x3_2(x)))
        return F.relu(self.relu(x)).mean((2, 3))


NUMBERED = ["x", "c3x3_1", "relu", "relu_2", "c3x3_2", "c3x3_2_1", "relu_1", "relu_3", "relu_4"]


def images(batch: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=dtype)


def exported(model: nn.Module, x: Tensor, strict: bool = False) -> torch.export.ExportedProgram:
    dynamic = ({0: torch.export.Dim.AUTO},)
    return torch.export.export(model.eval(), (x,), dynamic_shapes=dynamic, strict=strict)


def outputs_of_modules(model: nn.Module, x: Tensor) -> dict[str, list[Tensor]]:
    """What each call of each module returned."""
    found: dict[str, list[Tensor]] = {}
    handles = [
        module.register_forward_hook(
            lambda _, __, output, path=path: found.setdefault(path, []).append(output.clone())
        )
        for path, module in model.named_modules()
        if path
    ]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("front", ["module", "exported", "strict"])
def test_numbered_modules_keep_their_names(front: str) -> None:
    torch.manual_seed(0)
    model, x = Numbered().double().eval(), images()
    given: Any = model if front == "module" else exported(model, x, strict=front == "strict")
    explainer = nf.compile(given, x, method=METHOD, keep="importance")
    assert explainer.layers == NUMBERED
    flow, whole = explainer(x), dict(model.named_modules())
    for path, outputs in outputs_of_modules(model, x).items():  # HiResCAM from hooks
        leaf: dict[str, Tensor] = {}

        def keep(_: Any, __: Any, output: Tensor, leaf: dict[str, Tensor] = leaf) -> None:
            leaf.setdefault("first", output).retain_grad()

        handle = whole[path].register_forward_hook(keep)
        model(x).amax(1).sum().backward()
        handle.remove()
        gradient = leaf["first"].grad
        assert gradient is not None
        torch.testing.assert_close(flow.importance[path], gradient, msg=path)
        torch.testing.assert_close(flow.maps[path], (gradient * outputs[0]).sum(1).clamp_min(0))


class Composite(nn.Module):
    """Modules that an exported program holds as several operators."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")
        self.sign = nn.Softsign()

    def forward(self, x: Tensor) -> Any:
        return self.sign(self.stem(self.sign(self.stem(x)[:, :3]))).mean((2, 3))


def test_a_composite_has_its_modules_name_at_its_result() -> None:
    torch.manual_seed(0)
    model, x = Composite().double().eval(), images()
    whole = nf.compile(model, x, method=METHOD)(x)
    program = nf.compile(exported(model, x), x, method=METHOD)(x)
    for name in ("x", "stem", "stem_1", "sign", "sign_1"):
        torch.testing.assert_close(program.maps[name], whole.maps[name], msg=name)
    assert "stem.pad" in program.maps


class Clashing(nn.Module):
    """Children and an input with names that a GraphModule, or our programs, have themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.graph, self.meta, self.code = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1)
        self.recompile = nn.ReLU()

    def forward(self, target: Tensor) -> Any:
        return self.code(self.recompile(self.meta(self.graph(target)))).mean((2, 3))


class Plain(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = model.graph, model.meta, model.recompile, model.code

    def forward(self, x: Tensor) -> Any:
        return self.d(self.c(self.b(self.a(x)))).mean((2, 3))


def test_names_that_a_program_has_itself() -> None:
    torch.manual_seed(0)
    model, x = Clashing().double().eval(), images()
    explainer = nf.compile(model, x)
    assert explainer.layers == ["target", "graph", "meta", "recompile", "code"]
    flow, wanted = explainer(x, target=3), nf.compile(Plain(model), x)(x, target=3)
    assert flow.target is not None and flow.target.tolist() == [3, 3]
    for found, same in zip(flow.maps.values(), wanted.maps.values(), strict=True):
        torch.testing.assert_close(found, same)


@pytest.mark.parametrize("name", ["target", "query", "support", "image"])
def test_inputs_of_two_with_such_names(name: str) -> None:
    made: dict[str, Any] = {}
    exec(f"def forward(self, {name}, other): return self.c({name} + other).mean((2, 3))", made)
    model = type("Two", (nn.Module,), {"forward": made["forward"]})()
    model.c = nn.Conv2d(3, 4, 3).double()
    a, b = images(), images().flip(0)
    flow = nf.compile(model, (a, b), method=METHOD)((a, b), target=1)
    torch.testing.assert_close(flow.score, model.c(a + b).mean((2, 3))[:, 1].detach())
    assert list(flow.maps)[:2] == [name, "other"]


class Starred(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, *xs: Tensor, scale: float = 2.0, **more: Any) -> Any:
        return self.conv(sum(xs[1:], xs[0]) * scale).mean((2, 3))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("by_export", [False, True])
def test_a_forward_of_any_number_of_images(
    count: int, by_export: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by_export:
        monkeypatch.setattr("naflow_fx.passes.trace._symbolic", lambda *_: 1 / 0)
    torch.manual_seed(0)
    model, xs = Starred().double(), tuple(images() * i for i in range(1, count + 1))
    flow = nf.compile(model, xs, method=METHOD)(xs, target=1)
    torch.testing.assert_close(flow.score, model(*xs)[:, 1].detach())
    assert [f"xs_{i}" for i in range(count)] == list(flow.maps)[:count]


def test_as_many_examples_as_the_model_takes() -> None:
    one, x = Numbered().double(), images()
    with pytest.raises(InputError, match=r"got 2 tensors; the model's forward takes x\."):
        nf.compile(one, [x, x])
    with pytest.raises(InputError, match=r"got 2 tensors.*are one tensor \[N, C"):
        nf.compile(exported(one, x), [x, x])

    class Two(Numbered):
        def forward(self, x: Tensor, y: Tensor, scale: float = 1.0) -> Any:  # type: ignore[override]
            return super().forward(x + y * scale)

    with pytest.raises(InputError, match=r"got 1 tensor; the model's forward takes x, y\."):
        nf.compile(Two().double(), x)
    assert nf.compile(Two().double(), (x, x), method=METHOD).layers[:2] == ["x", "y"]


class Optional(Numbered):
    """A forward of transformers: everything has a default."""

    def forward(self, x: Any = None, labels: Any = None, return_dict: Any = None) -> Any:
        return super().forward(x)


def test_a_forward_that_needs_nothing_takes_one() -> None:
    torch.manual_seed(0)
    model, x = Optional().double(), images()
    flow = nf.compile(model, x, method=METHOD)(x, target=1)
    torch.testing.assert_close(flow.score, model(x)[:, 1].detach())
    with pytest.raises(InputError, match=r"got 4 tensors; the model's forward takes x"):
        nf.compile(model, (x,) * 4)


def test_a_program_that_torch_cannot_unpack_is_refused() -> None:
    model, x = Clashing().double(), images()
    with pytest.raises(TraceError, match="ExportedProgram.*nonexistent"):
        nf.compile(exported(model, x), x)


@pytest.mark.parametrize("example", [1, 2, 3, 4])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_program_of_another_batch_than_the_example(batch: int, example: int) -> None:
    """Exported for one batch only; nothing in it depends on the batch, so any will do."""
    torch.manual_seed(0)
    model, x = Numbered().double().eval(), images(4)
    program = torch.export.export(model, (x[:batch],))
    flow, wanted = nf.compile(program, x[:example])(x), nf.compile(model, x)(x)
    for name, found in flow.maps.items():
        torch.testing.assert_close(found, wanted.maps[name])


def test_sites_of_traced_graphs_are_unique() -> None:
    graph = trace(Numbered(), [images(dtype=torch.float32)]).graph
    names = [n.meta[keys.SITE] for n in graph.nodes if n.op not in ("get_attr", "output")]
    assert len(set(names)) == len(names)
