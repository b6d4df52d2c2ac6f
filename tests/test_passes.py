"""Passes are tested by what they keep: outputs, their input, their check; twice equals once."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hazards import UNTRACEABLE, PlainList, conv, head
from shelf import HAZARDS, hazard, hazard_images, images, network, two_heads
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.ops import stochastic_depth

import naflow_fx as nf
from naflow_fx import keys
from naflow_fx.compiler import PIPELINE
from naflow_fx.errors import GraphError, TargetError, TraceError, UnsupportedOperator
from naflow_fx.guards.modes import quiet_torch
from naflow_fx.job import Job
from naflow_fx.options import resolve
from naflow_fx.passes.annotate_values import annotate_values
from naflow_fx.passes.fold_constants import fold_constants
from naflow_fx.passes.label_dimensions import label_dimensions
from naflow_fx.passes.prune import prune
from naflow_fx.passes.remove_in_place import remove_in_place
from naflow_fx.rules import TABLE
from naflow_fx.solver.least_squares import LeastSquares

INVERSE = nf.Inverse(steps=2)
NAMES = [step.run.__name__ for step in PIPELINE]


def job(name: str) -> Job:
    options = resolve(inverse=INVERSE, keep=("bpfm", "importance"))
    target = two_heads if name == "two_heads" else None
    return Job(hazard(name), (hazard_images(name),), target, options)


@cache
def states(name: str) -> tuple[Any, ...]:
    """The model, and what every pass makes of it."""
    work = job(name)
    found = [work.model]
    with torch.no_grad():
        for step in PIPELINE:
            found.append(step(found[-1], work))
    return tuple(found)


def state_after(name: str, pass_name: str) -> fx.GraphModule:
    """The graph behind the first pass of that name."""
    result: fx.GraphModule = states(name)[NAMES.index(pass_name) + 1]
    return result


def run_graph(gm: nn.Module, x: Tensor) -> Any:
    """The model's own output, computed by any stage of the compilation."""
    inputs = [node.name for node in gm.graph.nodes if node.op == "placeholder"]  # type: ignore[union-attr]
    with torch.no_grad():
        result = gm(x.clone(), *(torch.full((len(x),), -1) for _ in inputs[1:]))
    return result["output"] if isinstance(result, dict) else result


def picture(gm: nn.Module) -> dict[str, Any]:
    """Everything about a stage that a pass must not change."""
    tensors = {**dict(gm.named_parameters()), **dict(gm.named_buffers())}
    found: dict[str, Any] = {
        "mode": [m.training for m in gm.modules()],
        "tensors": {k: (id(v), v.clone(), v.requires_grad, v.grad) for k, v in tensors.items()},
    }
    if isinstance(gm, fx.GraphModule):
        found["meta"] = repr(gm.meta)
        found["nodes"] = [
            (id(n), n.name, n.op, n.target, repr(n.args), repr(n.kwargs), repr(n.meta))
            for n in gm.graph.nodes
        ]
    return found


def assert_same_picture(before: dict[str, Any], after: dict[str, Any]) -> None:
    old, new = before.pop("tensors"), after.pop("tensors")
    assert before == after and old.keys() == new.keys()
    for name, (identity, value, *rest) in old.items():
        assert (identity, *rest) == (new[name][0], *new[name][2:]), name
        assert torch.equal(value, new[name][1]), name


@pytest.mark.parametrize("name", HAZARDS)
def test_every_pass_keeps_the_output_and_its_input_and_its_check_holds(name: str) -> None:
    work, stages, x = job(name), states(name), hazard_images(name, batch=3)
    with torch.no_grad():
        wanted = hazard(name).eval()(x)
    for step, before in zip(PIPELINE, stages[:-1], strict=True):
        seen = picture(before)
        with torch.no_grad():
            after = step(before, work)
        assert_same_picture(seen, picture(before))
        found = run_graph(after, x)
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12, msg=step.run.__name__)


@pytest.mark.parametrize("name", HAZARDS)
def test_no_node_depends_on_being_overwritten(name: str) -> None:
    """Every operator works on copies of its inputs: the same output."""
    gm, x = state_after(name, "remove_in_place"), hazard_images(name)
    wanted = run_graph(gm, x)
    found = OutOfPlace(gm).run(x.clone())
    torch.testing.assert_close(found, wanted)


class OutOfPlace(fx.Interpreter):
    """Gives every operator copies of its inputs, so that overwriting them changes nothing."""

    def run_node(self, n: fx.Node) -> Any:
        def fresh(value: Any) -> Any:
            return value.clone() if isinstance(value, Tensor) else value

        with torch.no_grad():
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            args, kwargs = fx.node.map_aggregate((args, kwargs), fresh)
            return getattr(self, n.op)(n.target, args, kwargs)


def structure(gm: fx.GraphModule) -> list[Any]:
    return [
        (n.name, n.op, n.target, repr(n.args), repr(n.kwargs), repr(n.meta)) for n in gm.graph.nodes
    ]


@pytest.mark.parametrize("name", ["in_place", "pre_activation", "dense_block", "gate", "two_pools"])
@pytest.mark.parametrize(
    "run", [remove_in_place, annotate_values, label_dimensions, fold_constants, prune]
)
def test_twice_equals_once(name: str, run: Callable[..., fx.GraphModule]) -> None:
    extra = [(hazard_images(name),)] if run is annotate_values else []
    once = state_after(name, run.__name__)
    assert structure(run(once, *extra)) == structure(once)


@pytest.mark.parametrize("name", HAZARDS)
def test_canonical_graphs_hold_rule_nodes_and_detached_constants_only(name: str) -> None:
    gm = state_after(name, "canonicalise")
    for node in gm.graph.nodes:
        assert node.op in ("placeholder", "get_attr", "call_function", "output"), node
        if node.op == "call_function":
            rule = TABLE.rules[node.meta[keys.RULE]]
            assert node.target is rule.forward and not node.args
            assert {keys.SHAPE, keys.DTYPE, keys.ACTIVE, keys.SITE} <= set(node.meta)
        if node.op == "get_attr":
            assert not getattr_path(gm, str(node.target)).requires_grad
    assert list(gm.parameters()) == []


def getattr_path(gm: Any, path: str) -> Any:
    for part in path.split("."):
        gm = getattr(gm, part)
    return gm


def test_constants_are_shared_with_the_model_not_copied() -> None:
    model = hazard("tied_weights")
    flow = nf.compile(model, hazard_images("tied_weights"), method="hirescam")
    own = {t.data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept = [b for n, b in flow.graph_module.named_buffers() if not n.startswith("folded_")]
    assert kept and all(b.data_ptr() in own for b in kept)
    weights = [b for b in kept if b.dim() == 4]
    assert len(weights) == 2  # the stem's, and the one that two convolutions have


@pytest.mark.parametrize("name", HAZARDS)
def test_nothing_foldable_and_nothing_dead_is_left(name: str) -> None:
    gm = states(name)[-1]
    for node in gm.graph.nodes:
        assert node.users or node.op in ("placeholder", "output"), f"{node} is dead"
        if node.op in ("call_function", "call_module"):
            inputs = node.all_input_nodes
            assert not inputs or any(n.op != "get_attr" for n in inputs), f"{node} is foldable"
    used = {n.target for n in gm.graph.nodes if n.op == "get_attr"}
    assert {name for name, _ in gm.named_buffers() if "." not in name} <= used


def test_prune_keeps_what_the_wanted_layers_need() -> None:
    model, x = network("resnet18", torch.float32), images((3, 64, 64), dtype=torch.float32)
    whole = nf.compile(model, x, inverse=INVERSE)
    part = nf.compile(model, x, inverse=INVERSE, layers="layer4*")
    assert part.layers == [s for s in whole.layers if s.startswith("layer4")] and part.layers
    few, all_ = (len(e.graph_module.graph.nodes) for e in (part, whole))
    assert few < 0.45 * all_, (few, all_)
    for node in part.graph_module.graph.nodes:
        if node.meta.get(keys.PART) in ("inverse", "importance", "map"):
            source = node.meta[keys.SOURCE]
            assert source.startswith(("layer4", "avgpool", "flatten", "fc", "score")), node
    modules = dict(part.graph_module.named_modules())
    solvers = [name for name, m in modules.items() if isinstance(m, LeastSquares)]
    assert solvers and all(n.startswith("inverse.layer4") for n in solvers)
    a, b = part(x), whole(x)
    for site in part.layers:
        torch.testing.assert_close(a.maps[site], b.maps[site])
        torch.testing.assert_close(a.residual[site], b.residual[site])


@pytest.mark.parametrize("name", ["gate", "two_pools", "dense_block"])
def test_a_single_layer_equals_itself_among_all(name: str) -> None:
    model, x = hazard(name), hazard_images(name)
    whole = nf.compile(model, x, inverse=INVERSE)
    flow = whole(x)
    for site in whole.layers:
        only = nf.compile(model, x, inverse=INVERSE, layers=[site])
        assert only.layers == [site]
        torch.testing.assert_close(only(x).maps[site], flow.maps[site], rtol=1e-9, atol=1e-12)


class Unsupported(nn.Module):
    """Two operators that have no rule, and one that has."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.head = conv(3, 6), nn.GLU(1), head(3)

    def forward(self, x: Tensor) -> Any:
        x = torch.relu(self.conv(x))
        x = self.act(x)
        x = torch.cumsum(x, 2)
        return self.head(x.erfinv())


class RealKernels(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the operators of networks that run on numbers, not on shapes alone."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [a for a in args if isinstance(a, Tensor)]
        on_shapes = any(a.is_meta or isinstance(a, FakeTensor) for a in tensors)
        if any(a.dim() == 4 for a in tensors) and not on_shapes:
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def test_unsupported_operators_are_reported_all_at_once_before_anything_is_computed() -> None:
    model, x = Unsupported(), images((3, 12, 12), dtype=torch.float32)
    with RealKernels() as mode, pytest.raises(UnsupportedOperator) as raised:
        nf.compile(model, x)
    lines = str(raised.value).splitlines()
    assert lines[0] == "3 nodes have no rule"
    start = inspect.getsourcelines(Unsupported.forward)[1]
    place = Path(__file__).name
    assert lines[1].split()[:2] == ["act", "torch.nn.modules.activation.GLU"]
    assert lines[1].split(maxsplit=2)[2].split("  ") == ["[-1, 3, 12, 12]", f"{place}:{start + 2}"]
    assert lines[2].split()[:2] == ["cumsum", "torch.cumsum"]
    assert lines[2].split()[-1] == f"{place}:{start + 3}"
    assert lines[3].split()[:2] == ["erfinv", "Tensor.erfinv"]
    assert lines[3].split()[-1] == f"{place}:{start + 4}"
    assert "Rules exist for: " in lines[4] and "conv" in lines[4] and "operators.md" in lines[4]
    assert {name.split(".")[1] for name in mode.seen} <= {"detach", "slice", "expand", "alias"}


@pytest.mark.parametrize("name", UNTRACEABLE)
def test_what_tracing_cannot_see_is_an_error(name: str) -> None:
    with pytest.raises(TraceError) as raised:
        nf.compile(hazard(name, torch.float32), hazard_images(name, dtype=torch.float32))
    wanted = {
        "overwritten_view": "computes something else than the model",
        "random_in_eval": "draws random numbers in eval mode",
        "branch_on_values": "hazards.py:",
    }
    assert wanted[name] in str(raised.value)


def test_layers_in_a_plain_list_are_explained_in_eval_mode_too() -> None:
    torch.manual_seed(0)
    model, x = PlainList(), images((3, 12, 12), dtype=torch.float32)
    x = x * 3 + 1
    explainer = nf.compile(model, x, inverse=INVERSE)
    assert [len(explainer.layers), explainer.layers[0]] == [4, "x"]
    found = explainer(x).output
    assert model.layers[1].training and model.layers[1].num_batches_tracked == 0
    model.layers[1].eval()
    torch.testing.assert_close(found, model.eval()(x).detach())


def test_a_hook_that_changes_an_output_is_an_error() -> None:
    model = hazard("in_place")
    model.conv.register_forward_hook(lambda module, args, output: output * 2)  # type: ignore[union-attr]
    with pytest.raises(TraceError, match="a hook changes what the model computes: conv: .*lambda"):
        nf.compile(model, hazard_images("in_place"))


def test_an_example_of_the_wrong_size_names_the_place() -> None:
    place = r"batch of 2 of shape \[N, 4, 12, 12\]: at stem \(hazards.py:\d+\): [^\n]+\n  Give an"
    with pytest.raises(TraceError, match=place):
        nf.compile(hazard("in_place"), images((4, 12, 12)))


def test_torch_does_not_log_the_fake_run_that_failed() -> None:
    log = logging.getLogger("torch._subclasses.fake_tensor")
    said: list[logging.LogRecord] = []

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record)

    handler = Listening()
    log.addHandler(handler)
    try:
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AvgPool2d(7), nn.ReLU())
        with pytest.raises(TraceError):
            nf.compile(model, torch.ones(1, 3, 8, 8))
    finally:
        log.removeHandler(handler)
    assert not said and not log.filters


@pytest.mark.parametrize("first_to_leave", [0, 1])
def test_only_the_thread_that_runs_is_silenced(first_to_leave: int) -> None:
    log = logging.getLogger("torch._subclasses.fake_tensor")
    record = log.makeRecord(log.name, logging.WARNING, "", 0, "one of another thread", (), None)
    contexts = [quiet_torch(), quiet_torch()]
    for context in contexts:
        context.__enter__()
    assert not log.filter(record)
    record.thread = -1
    assert log.filter(record)
    contexts.pop(first_to_leave).__exit__(None, None, None)
    contexts.pop().__exit__(None, None, None)
    assert not log.filters and not log.disabled


HANDED_ON: dict[str, Callable[[Tensor], Tensor]] = {
    "dropout": lambda x: F.dropout(x, training=False),
    "contiguous": lambda x: x.contiguous(),
    "stochastic depth": lambda x: stochastic_depth(x, 0.5, "row", training=False),
    "module": nn.Dropout2d(),
    "copy": lambda x: x.clone(),
}


class OverwrittenAlias(nn.Module):
    """What is read after `relu_` has another name than what was overwritten."""

    def __init__(self, hand_on: Callable[[Tensor], Tensor], beside: bool) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)
        self.hand_on, self.beside = hand_on, beside

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        other = self.hand_on(x)
        y = torch.relu_(x if self.beside else other)
        found: Tensor = self.head((torch.tanh(y) + (other if self.beside else x)).mean((2, 3)))
        return found


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("name", HANDED_ON)
def test_every_name_of_an_overwritten_tensor(name: str, beside: bool) -> None:
    model, x = OverwrittenAlias(HANDED_ON[name], beside).eval(), images((3, 8, 8)).float()
    found = nf.compile(model, x, method="layercam")(x).output
    torch.testing.assert_close(found, model(x).detach())


class OneImage(nn.Module):
    """Flattens as if there were one image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = conv(3, 2), nn.Linear(2 * 36, 3)

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.conv(x).view(1, -1))


def test_a_model_of_one_batch_size_is_an_error_that_says_so() -> None:
    hint = r"batch of 2 of shape .*\n.*runs on the example's batch of 1, and must take any:"
    with pytest.raises(TraceError, match=hint):
        nf.compile(OneImage().double(), images((3, 6, 6), batch=1))


def test_a_network_without_feature_maps_is_an_error() -> None:
    mlp = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 2))
    explainer = nf.compile(mlp, torch.randn(1, 3, 2, 2))
    assert explainer.layers == ["input"]  # the image itself is one


# A check that never fails is none: each is run on the graph before its pass.
@pytest.mark.parametrize(
    ("pass_name", "error"),
    [
        ("add_score", GraphError),
        ("annotate_values", TargetError),
        ("canonicalise", GraphError),
        ("label_dimensions", GraphError),
        ("build_importance", GraphError),
        ("build_inverse", GraphError),
    ],
)
def test_checks_fail_on_the_graph_before_the_pass(pass_name: str, error: type[Exception]) -> None:
    index = NAMES.index(pass_name)
    with pytest.raises(error):
        PIPELINE[index].verify(states("in_place")[index], job("in_place"))


def test_missing_captures_are_noticed() -> None:
    gm = fx.GraphModule(*(lambda g: (g, g.graph))(state_after("in_place", "canonicalise")))
    next(n for n in gm.graph.nodes if n.name == "relu").meta[keys.CAPTURES] = {"mask": "gone"}
    with pytest.raises(GraphError, match="relu: capture gone is not in the graph"):
        PIPELINE[NAMES.index("insert_captures")].verify(gm, job("in_place"))
