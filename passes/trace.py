"""trace: a trained CNN -> torch.fx graph with call-site names."""

from __future__ import annotations

import importlib
import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_unflatten

from naflow_fx import keys
from naflow_fx.errors import NaflowError, TraceError
from naflow_fx.guards.modes import quiet_torch
from naflow_fx.guards.records import form_of, plain
from naflow_fx.guards.wrappers import unwrapped
from naflow_fx.passes._names import (
    SiteNames,
    calling_line,
    check_count,
    free_names,
    input_names,
    last_frame,
    name_exported,
    reason,
)
from naflow_fx.passes._transforms import traceable_transforms
from naflow_fx.passes.copy_model import evaluated, writable
from naflow_fx.rules import TABLE, kind_of

_ONE_AT_A_TIME = threading.RLock()  # while it traces, torch.fx patches nn.Module for all threads


def trace(model: Any, examples: Sequence[Tensor]) -> fx.GraphModule:
    """The model's forward pass in eval mode, one node per call, named as torchvision names them.

    Before: an nn.Module (any mode), a GraphModule or an ExportedProgram; left untouched.
    After: a GraphModule whose nodes carry `keys.SITE` and `keys.WHERE`; it shares the tensors, and
    `keys.READ` names those that its forward reads by itself.
    Symbolic tracing comes first, for its names; `torch.export` where it fails, or where what it
    found doesn't run.

    Raises:
        TraceError: both failed; says where in the model's code, and why.
        InputError: there are more or fewer examples than inputs.
    """
    if isinstance(model, torch.export.ExportedProgram):
        return _of_program(model, len(examples))
    if not isinstance(model, nn.Module):
        raise TraceError(f"model: got {type(model).__name__}; wanted an nn.Module, a torch.fx "
                         "GraphModule or an ExportedProgram")  # fmt: skip
    with _ONE_AT_A_TIME, traceable_transforms(examples[0].dtype):
        gm = _traced(unwrapped(model), examples)
    read = (str(node.target) for node in gm.graph.find_nodes(op="get_attr"))
    gm.meta[keys.READ] = tuple(dict.fromkeys(read))
    return gm


def _traced(model: nn.Module, examples: Sequence[Tensor]) -> fx.GraphModule:
    try:
        gm = _symbolic(evaluated(model), len(examples))
    except NaflowError:
        raise
    except Exception as symbolic:
        try:
            # another copy: in the first one tracing may have left what it put there
            return export_any_batch(evaluated(model), examples)
        except Exception as exported:
            raise TraceError(
                f"{type(model).__name__} can't be turned into a graph\n"
                f"  torch.fx      {reason(symbolic)}\n"
                f"  torch.export  {reason(exported)}\n"
                "  Replace control flow on tensor values in the model's code, or trace the part "
                "of it that is a network."
            ) from symbolic
    if not runs(gm, examples):  # it may have taken another branch: no proxy is a Tensor
        with suppress(Exception):
            other = export_any_batch(evaluated(model), examples)
            return other if runs(other, examples) else gm
    return gm


def fake_run(
    gm: fx.GraphModule, examples: Sequence[Tensor], size: int
) -> tuple[dict[fx.Node, Any], Exception | None]:
    """What nodes yield on a batch of `size`, as fake tensors; why the first one without fails.

    A graph that has an input beside the images gets class indices there.
    """
    run = fx.Interpreter(gm, garbage_collect_values=False)
    with torch.no_grad(), quiet_torch(), FakeTensorMode(allow_non_fake_inputs=True) as mode:
        try:
            inputs: list[Tensor] = [mode.from_tensor(example_batch(x, size)) for x in examples]
            if len(gm.graph.find_nodes(op="placeholder")) > len(inputs):
                inputs.append(torch.zeros(size, dtype=torch.int64, device=inputs[0].device))
            run.run(*inputs)
        except Exception as error:
            return run.env, error
    return run.env, None


def runs(gm: fx.GraphModule, examples: Sequence[Tensor], size: int = 2) -> bool:
    """Whether a graph runs on that many fake images."""
    return fake_run(gm, examples, size)[1] is None


def _symbolic(model: nn.Module, inputs: int) -> fx.GraphModule:
    tracer = PathTracer(inputs)
    before = [(module, dict(vars(module))) for module in model.modules()]
    with writable(model):
        graph = tracer.trace(model)
    for module, state in before:  # what forward kept of a call is no constant of the graph
        left = [name for name, value in vars(module).items() if issubclass(type(value), fx.Proxy)]
        for name in left:
            vars(module).pop(name)
        vars(module).update((name, state[name]) for name in left if name in state)
    gm = fx.GraphModule(free_names(model, graph), graph)
    gm.meta[keys.FORM] = tracer.form
    return gm


def export_any_batch(model: nn.Module, examples: Sequence[Tensor]) -> fx.GraphModule:
    """The graph of a model that torch.export takes, for any batch; `model` is called differently.

    What its forward returns is made plain, since torch.export knows few records.
    """
    args = tuple(example_batch(x, 2).clone() for x in examples)
    kind, signature, forms = type(model), inspect.signature(model.forward), []
    own = vars(model).pop("forward", None)

    def forward(self: nn.Module, *images: Any) -> Any:
        found = own(*images) if own else kind.forward(self, *images)
        forms.append(form_of(found))
        return plain(found)

    inputs = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)]
    inputs += signature.parameters.values()
    vars(forward)["__signature__"] = signature.replace(parameters=inputs)
    # by its class: torch.export names modules by what it hands over as `self`
    model.__class__ = type(kind.__name__, (kind,), {"forward": forward})
    shapes = torch.export.ShapesCollection()  # type: ignore[no-untyped-call]
    for x in args:
        shapes[x] = {0: torch.export.Dim.AUTO}
    importlib.import_module("torch.export._trace")  # first: what it prints is silenced
    with quiet_torch():
        program = torch.export.export(model, args, dynamic_shapes=shapes)
    gm = _exported(program)
    gm.meta[keys.FORM] = forms[-1]
    return gm


class _Proxy(fx.Proxy):
    """A value whose `data` can be set: who reads it afterwards reads what was put there."""

    @property
    def data(self) -> Any:
        """The value without its gradient."""
        return self.tracer.create_proxy("call_function", getattr, (self, "data"), {})

    @data.setter
    def data(self, value: Any) -> None:
        self.node = value.node


class PathTracer(fx.Tracer):
    """Symbolic tracer that names nodes by module path, `layer1.0.relu_1` for a second call.

    The naming is torchvision's (`feature_extraction.get_graph_node_names`), so that users find
    the names that they know.  Leaves: torch.nn's modules and those that a rule claims.  Modules
    that other threads call meanwhile run as ever.
    """

    def __init__(self, inputs: int = 1) -> None:
        super().__init__()
        self.form: Any = None  # of what the root returned; see `records`
        self._inputs = inputs
        self._names = SiteNames()
        self._thread = 0
        self._in_function = False

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        """The graph of a module's forward pass; one thread at a time."""
        with _ONE_AT_A_TIME, torch.enable_grad(), self._functions():
            self._thread = threading.get_ident()
            self._names = SiteNames(name for name, _ in root.named_modules())
            return super().trace(root, concrete_args)

    @contextmanager
    def _functions(self) -> Iterator[None]:
        """Notes calls of autograd.Functions: torch runs them under no_grad, for their backward."""
        original = torch.autograd.Function.__dict__["apply"]

        def apply(kind: Any, *args: Any, **kwargs: Any) -> Any:
            mine = threading.get_ident() == self._thread
            outside, self._in_function = self._in_function, mine or self._in_function
            try:
                return original.__get__(None, kind)(*args, **kwargs)
            finally:
                self._in_function = outside

        with patch.object(torch.autograd.Function, "apply", classmethod(apply)):
            yield

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: Any = None
    ) -> tuple[Any, list[Any]]:
        """One placeholder an input; what else forward takes has its default, as when called."""

        def call(root: Any, *images: Any) -> Any:
            found = root.forward(*images)  # also one that was put on the model
            self.form = form_of(found)
            return plain(found)

        names = input_names(self.root.forward, self._inputs)
        inputs = [self.create_proxy("placeholder", name, (), {}) for name in names]
        return call, [self.root, *inputs]

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """A parameter as a node, in the thread that traces."""
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a call of `m` is one node: torch's own forward, which no one has replaced."""
        kind = kind_of(m)
        own = kind.__module__.startswith(("torch.nn", "torch.ao.nn"))
        known = kind in TABLE.modules or (own and not isinstance(m, nn.Sequential))
        computed = any(isinstance(x, fx.Proxy) for x in vars(m).values())  # by who calls it
        return known and not computed and "forward" not in vars(m)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """The value of a node."""
        return _Proxy(node, self)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """A module's call, a node or what its forward does; no hook sees a proxy."""
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, m.forward, args, kwargs)

    def create_proxy(self, kind: str, target: Any, args: Any, *rest: Any, **options: Any) -> Any:
        """A call as a node; what only asks autograd for a gradient is none."""
        if kind == "call_method" and target in ("register_hook", "retain_grad", "requires_grad_"):
            return args[0] if target == "requires_grad_" else None
        return super().create_proxy(kind, target, args, *rest, **options)

    def create_node(self, kind: str, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        """Names every node, and notes the line of the model's code."""
        node = super().create_node(kind, target, *args, **kwargs)
        inside = self.scope.module_path
        if kind == "call_module":
            node.meta[keys.SITE] = self._names.of_module(inside)
        elif kind == "placeholder":
            node.meta[keys.SITE] = self._names.of_input(str(target))
        else:
            node.meta[keys.SITE] = self._names.of_function(f"{inside}.{node}".lstrip("."))
        node.meta[keys.WHERE] = calling_line(PathTracer.trace.__code__)
        self._refuse_autocast(node)
        if not torch.is_grad_enabled() and not self._in_function:
            node.meta[keys.HELD] = True
        return node

    def _refuse_autocast(self, node: fx.Node) -> None:
        device = next((p.device.type for p in self.root.parameters() if not p.is_meta), "cpu")
        if torch.is_autocast_enabled(device):
            raise TraceError(
                f"autocast is switched on inside the model's forward, at {node.meta[keys.SITE]} "
                f"({node.meta[keys.WHERE]}); the graph can't tell which numbers it rounds.  Take "
                "it out of forward; call the explainer inside torch.autocast instead"
            )


def _of_program(program: torch.export.ExportedProgram, inputs: int) -> fx.GraphModule:
    """The graph of a user's ExportedProgram."""
    try:
        gm = _exported(program)
    except Exception as error:
        raise TraceError(
            f"torch can't make a module of this ExportedProgram: {reason(error)}.  Give the "
            "model itself"
        ) from error
    check_count([node.name for node in gm.graph.find_nodes(op="placeholder")], inputs)
    return gm


def module_of(program: torch.export.ExportedProgram) -> Any:
    """The module of an ExportedProgram, without its guards on shapes."""
    try:
        found: Any = program.module(check_guards=False)
    except TypeError:  # torch 2.11 has no guards to leave out
        found = program.module()
    found._forward_pre_hooks.clear()  # which ask for the batch that it was exported with
    return found


def _exported(program: torch.export.ExportedProgram) -> fx.GraphModule:
    """The graph of an ExportedProgram, its nodes named, its output nested."""
    gm = module_of(program)
    name_exported(gm.graph)
    for node in gm.graph.nodes:
        node.meta[keys.WHERE] = last_frame(node.stack_trace or "")
    end, codegen = gm.graph.output_node(), gm.graph._codegen
    result = tree_unflatten(list(end.args[0]), codegen.pytree_info.out_spec)
    end.args = (plain(result),)
    gm.graph.set_codegen(fx.graph.CodeGen())
    made = fx.GraphModule(free_names(gm, gm.graph), gm.graph)
    made.meta[keys.FORM] = form_of(result)
    return made


def example_batch(example: Tensor, size: int) -> Tensor:
    """The example's first image, `size` times."""
    return example[:1].expand(size, *example.shape[1:])
