"""trace: a trained CNN -> torch.fx graph with call-site names."""

from __future__ import annotations

import importlib
import inspect
import operator
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_unflatten

from naflow_fx import keys
from naflow_fx.errors import InputError, NaflowError, TraceError
from naflow_fx.passes._transforms import traceable_transforms
from naflow_fx.passes.copy_model import evaluated
from naflow_fx.plain_modes import quiet_torch
from naflow_fx.rules import TABLE, kind_of

_TORCH = str(Path(torch.__file__).parent) + os.sep
_PACKAGE = str(Path(__file__).parent.parent) + os.sep  # naflow_fx, where passes/ is linked from
_MODELS = _PACKAGE + "models" + os.sep
_ONE_AT_A_TIME = threading.RLock()  # while it traces, torch.fx patches nn.Module for all threads


def trace(model: Any, examples: Sequence[Tensor]) -> fx.GraphModule:
    """The model's forward pass in eval mode, one node per call, named as torchvision names them.

    Before: an nn.Module (any mode), a GraphModule or an ExportedProgram; left untouched.
    After: a GraphModule whose nodes carry `keys.SITE` and `keys.WHERE`; it shares the tensors.
    Symbolic tracing comes first, for its names; `torch.export` where it fails.

    Raises:
        TraceError: both failed; says where in the model's code, and why.
        InputError: there are more or fewer examples than inputs.
    """
    if isinstance(model, torch.export.ExportedProgram):
        return _exported(model)
    if not isinstance(model, nn.Module):
        raise TraceError(f"model: got {type(model).__name__}; wanted an nn.Module, a torch.fx "
                         "GraphModule or an ExportedProgram")  # fmt: skip
    frozen = evaluated(model)
    with _ONE_AT_A_TIME, traceable_transforms(examples[0].dtype):
        gm = _traced(frozen, examples)
    _check_count(gm, len(examples))
    return gm


def _check_count(gm: fx.GraphModule, given: int) -> None:
    """As many examples as forward has inputs."""
    names = [str(node.target) for node in gm.graph.nodes if node.op == "placeholder"]
    if len(names) != given and not any(name.startswith("*") for name in names):
        raise InputError(
            f"example_inputs: got {given}; the model's forward takes {len(names)}: "
            f"{', '.join(names)}.  A batch of images is one tensor [N, ...]; a model of several "
            "image inputs takes a tuple of them"
        )


def _traced(frozen: nn.Module, examples: Sequence[Tensor]) -> fx.GraphModule:
    try:
        return _symbolic(frozen, len(examples))
    except NaflowError:
        raise
    except Exception as symbolic:
        try:
            return _exported(_export(frozen, examples))
        except Exception as exported:
            raise TraceError(
                f"{type(frozen).__name__} can't be turned into a graph\n"
                f"  torch.fx      {_reason(symbolic)}\n"
                f"  torch.export  {_reason(exported)}\n"
                "  Replace control flow on tensor values in the model's code, or trace the part "
                "of it that is a network."
            ) from symbolic


def _symbolic(model: nn.Module, inputs: int) -> fx.GraphModule:
    _put_forward_in_class(model)
    with _writable(model):
        graph = PathTracer().trace(model, _defaults(model, inputs))
    _drop_defaults(graph, inputs)
    return fx.GraphModule(model, graph)


def _put_forward_in_class(model: nn.Module) -> None:
    """torch.fx takes the forward of the model's class; one that was put on the model counts."""
    if "forward" in vars(model):
        names = ", ".join(inspect.signature(model.forward).parameters)
        made: dict[str, Any] = {"own": model.forward}
        exec(f"def forward(self, {names}): return own({names})", made)  # its signature counts
        kind = type(model)
        model.__class__ = type(kind.__name__, (kind,), made)


@contextmanager
def _writable(model: nn.Module) -> Iterator[None]:
    """While it is traced, the model writes to copies of its buffers, if it writes to them."""
    owners = [owner for m in model.modules() for owner in (m._buffers, vars(m))]
    shared = [(o, k, t) for o in owners for k, t in o.items() if isinstance(t, Tensor)]
    copies = {id(t): t.clone() for _, _, t in shared}
    for owner, key, tensor in shared:
        owner[key] = copies[id(tensor)]
    yield
    for owner, key, tensor in shared:
        own = copies[id(tensor)]
        if owner.get(key) is own and (tensor.is_meta or not bool((own != tensor).any())):
            owner[key] = tensor


def _export(model: nn.Module, examples: Sequence[Tensor]) -> torch.export.ExportedProgram:
    """The model exported for any batch."""
    args = tuple(example_batch(x, 2).clone() for x in examples)
    sizes = tuple({0: torch.export.Dim.AUTO} for _ in args)
    importlib.import_module("torch.export._trace")  # first: what it prints is silenced
    with quiet_torch():
        return torch.export.export(model, args, dynamic_shapes=sizes)


def _reason(error: Exception) -> str:
    """One line: the line of the model's code, and what was wrong there."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return f"{_where_in_model(error)}: {lines[0].strip().split('. ')[0]}"


def _defaults(model: nn.Module, inputs: int) -> dict[str, Any]:
    """Parameters of forward beyond the inputs that have a default keep it."""
    rest = list(inspect.signature(model.forward).parameters.values())[inputs:]
    return {p.name: p.default for p in rest if p.default is not p.empty}


def _drop_defaults(graph: fx.Graph, inputs: int) -> None:
    """Removes the inputs that were fixed, and the assertions that guard them."""
    images = [node for node in graph.nodes if node.op == "placeholder"][:inputs]
    for node in reversed(list(graph.nodes)):
        guard = getattr(node.target, "__name__", "") in ("_assert", "_assert_is_none")
        fixed = guard or (node.op == "placeholder" and node not in images)
        if (fixed or node.target is operator.eq) and not node.users:
            graph.erase_node(node)
    graph.set_codegen(fx.graph.CodeGen())


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

    def __init__(self) -> None:
        super().__init__()
        self._path = ""
        self._names = _Names()
        self._thread = 0
        self._in_function = False

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        """The graph of a module's forward pass; one thread at a time."""
        with _ONE_AT_A_TIME, torch.enable_grad(), self._functions():
            self._thread = threading.get_ident()
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

        torch.autograd.Function.apply = classmethod(apply)
        try:
            yield
        finally:
            torch.autograd.Function.apply = original

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
        """Keeps the caller's path while a module is traced."""
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        caller, self._path = self._path, self.path_of_module(m)
        try:
            return super().call_module(m, m.forward, args, kwargs)  # no hook sees a proxy
        finally:
            self._path = caller

    def create_proxy(self, kind: str, target: Any, args: Any, *rest: Any, **options: Any) -> Any:
        """A call as a node; what only asks autograd for a gradient is none."""
        if kind == "call_method" and target in ("register_hook", "retain_grad", "requires_grad_"):
            return args[0] if target == "requires_grad_" else None
        return super().create_proxy(kind, target, args, *rest, **options)

    def create_node(self, kind: str, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        """Names every node, and notes the line of the model's code."""
        node = super().create_node(kind, target, *args, **kwargs)
        path = self._path
        if kind != "call_module":
            path = f"{path}.{node}" if path else str(node)
        node.meta[keys.SITE] = self._names.unique(path)
        node.meta[keys.WHERE] = _calling_line()
        self._refuse_autocast(node)
        if not torch.is_grad_enabled() and not self._in_function:
            node.meta[keys.HELD] = True
        return node

    def _refuse_autocast(self, node: fx.Node) -> None:
        device = next((p.device.type for p in self.root.parameters() if not p.is_meta), "cpu")
        if torch.is_autocast_enabled(device):
            raise TraceError(
                f"autocast is switched on inside the model's forward, at {node.meta[keys.SITE]} "
                f"({node.meta[keys.WHERE]}): the graph can't tell which numbers it rounds.  Take "
                "it out of forward; call the explainer inside torch.autocast instead"
            )


class _Names:
    """Names of call sites, each once: `relu`, `relu_1`, ...; a number of its own is stripped."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def unique(self, path: str) -> str:
        """The name of the next call site on that path."""
        base = re.sub(r"_[0-9]+$", "", path)
        self._last[base] = self._last.get(base, -1) + 1
        return base if self._last[base] == 0 else f"{base}_{self._last[base]}"


def module_of(program: torch.export.ExportedProgram) -> Any:
    """The module of an ExportedProgram, without its guards on shapes."""
    try:
        return program.module(check_guards=False)
    except TypeError:  # torch 2.11 has no guards to leave out
        return program.module()


def _exported(program: Any) -> fx.GraphModule:
    """The module of an ExportedProgram, without its shape guards."""
    gm = module_of(program)
    names = _Names()
    for node in gm.graph.nodes:
        node.meta[keys.SITE] = names.unique(_exported_path(node))
        node.meta[keys.WHERE] = _last_frame(node.stack_trace or "")
    return _nested_output(gm)


def _nested_output(gm: fx.GraphModule) -> fx.GraphModule:
    """The graph of an exported program returns a flat tuple; its output as the model nests it."""
    codegen: Any = gm.graph._codegen
    spec = codegen.pytree_info.out_spec
    end = next(node for node in reversed(gm.graph.nodes) if node.op == "output")
    end.args = (tree_unflatten(list(end.args[0]), spec),)
    gm.graph.set_codegen(fx.graph.CodeGen())
    gm.recompile()
    return gm


def _exported_path(node: fx.Node) -> str:
    """`layer1.0.conv1` for an operator of a torch.nn module, `layer1.0.add` for a function."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    plain = re.sub(r"_\d+$", "", node.name).rstrip("_")  # add_: in place, as traced symbolically
    if not stack:
        return plain
    path, kind = stack[-1]
    path = re.sub(r"@\d+$", "", path).removeprefix("L['self'].")
    kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    leaf = kind.startswith("torch.nn.modules.") and "container" not in kind
    if leaf and path:
        return str(path)
    return f"{path}.{plain}" if path else plain


def _calling_line() -> str:
    """file:line of the innermost line of the model's own code that is being traced, or "".

    torch.fx's own `record_stack_traces` formats every frame of every node, and imports
    torch.export and Inductor to leave some out.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code is not PathTracer.trace.__code__:
        if _is_model_code(frame.f_code.co_filename):
            return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def _last_frame(stack: str) -> str:
    """file:line of the innermost line of the model's own code."""
    frames = re.findall(r'File "(.+?)", line (\d+)', stack)
    own = [frame for frame in frames if _is_model_code(frame[0])]
    return ":".join(own[-1]).rsplit("/", 1)[-1] if own else ""


def _is_model_code(file: str) -> bool:
    """Whether a file is neither torch's nor the compiler's."""
    return file.startswith(_MODELS) or not file.startswith((_TORCH, _PACKAGE))


def _where_in_model(error: BaseException) -> str:
    """file:line of the model's code where tracing stopped."""
    frames, trace = [], error.__traceback__
    while trace is not None:
        frames.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    own = [frame for frame in frames if _is_model_code(frame[0])]
    file, line = (own or frames)[-1]
    return f"{file}:{line}"


def example_batch(example: Tensor, size: int) -> Tensor:
    """The example's first image, `size` times."""
    return example[:1].expand(size, *example.shape[1:])
