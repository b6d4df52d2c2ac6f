"""Names in a traced graph, of call sites, inputs and what the root holds; places in its code."""

from __future__ import annotations

import inspect
import operator
import os
import re
import sys
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import count as count_up
from pathlib import Path
from types import CodeType
from typing import Any

import torch
from torch import fx, nn

from naflow_fx import keys
from naflow_fx.errors import InputError, first_line
from naflow_fx.passes import _graph

OURS = ("target", "query", "support", "image")  # inputs of the programs that passes make
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class SiteNames:
    """Names of call sites, each once.

    The first call of a module has exactly its path.  Functions are numbered as torchvision does,
    `add`, `add_1`, ..., and so are later calls of a module; both pass over every module's path.
    """

    def __init__(self, paths: Iterable[str] = ()) -> None:
        self._paths = set(paths)
        self._taken: set[str] = set()
        self._numbers: dict[str, Iterator[int]] = defaultdict(count_up)

    def of_module(self, path: str) -> str:
        """The name of the next call of the module at `path`."""
        if path not in self._taken:
            self._taken.add(path)
            return path
        return self.of_input(path)

    def of_function(self, path: str) -> str:
        """The name of the next call of a function; a number of its own is stripped."""
        return self.of_input(re.sub(r"_[0-9]+$", "", path))

    def of_input(self, base: str) -> str:
        """The name of an input of the model: the next one that is free."""
        names = (f"{base}_{i}" if i else base for i in self._numbers[base])
        name = next(n for n in names if n not in self._paths and n not in self._taken)
        self._taken.add(name)
        return name


def name_exported(graph: fx.Graph) -> None:
    """Names an exported program's nodes as symbolic tracing names them.

    One call of a torch.nn module may be several nodes there: the one that holds its result has
    the module's name, the others `module.operator`.
    """
    calls = {node: call for node in graph.nodes if (call := _call(node)) is not None}
    results = {calls[node]: node for node in calls if _is_result(node, calls)}
    nodes: list[fx.Node] = list(graph.nodes)
    names = SiteNames(path for node in nodes for path in _paths(node))
    for node in nodes:
        call = calls.get(node)
        if node.op == "placeholder":
            node.meta[keys.SITE] = names.of_input(str(node.target))
        elif call is not None and results.get(call) is node:
            node.meta[keys.SITE] = names.of_module(call[1])
        else:
            plain = re.sub(r"_\d+$", "", node.name).rstrip("_")  # add_: in place
            path = _paths(node)[-1] if _paths(node) else ""
            node.meta[keys.SITE] = names.of_function(f"{path}.{plain}" if path else plain)


def _stack(node: fx.Node) -> list[tuple[str, tuple[str, Any]]]:
    found: Any = node.meta.get("nn_module_stack") or {}
    return list(found.items())


def _paths(node: fx.Node) -> list[str]:
    """The paths of the modules that a node was called in, outermost first."""
    found = (re.sub(r"@\d+$", "", path) for _, (path, _) in _stack(node))
    return [path.removeprefix("L['self'].") for path in found]


def _call(node: fx.Node) -> tuple[str, str] | None:
    """Which call of a torch.nn module a node is part of, and the module's path; or None."""
    if node.op != "call_function" or not _paths(node) or not _paths(node)[-1]:
        return None
    key, (_, kind) = _stack(node)[-1]
    kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    leaf = kind.startswith("torch.nn.modules.") and "container" not in kind
    return (key, _paths(node)[-1]) if leaf else None


def _is_result(node: fx.Node, calls: dict[fx.Node, tuple[str, str]]) -> bool:
    """Whether a node's value leaves the call that it is part of, as the first of its results."""
    if node.target is operator.getitem and node.args[1] != 0:
        return False
    return any(calls.get(user) != calls[node] for user in node.users)


def free_names(root: nn.Module, graph: fx.Graph) -> nn.Module | dict[str, Any]:
    """What `graph` needs of `root`, after names that a program has for itself were changed.

    Inputs called `target` and children called `graph`, `meta` or `code` get another name in the
    graph; their sites keep theirs.
    """
    taken = {node.name for node in graph.nodes}
    found: dict[str, Any] = {}
    for node in graph.nodes:
        if node.op == "placeholder" and node.target in OURS:
            node.target = next(n for i in count_up() if (n := f"{node.target}_{i}") not in taken)
            node.name = node.target
        if node.op in ("call_module", "get_attr"):
            value = _graph.attribute(root, str(node.target))
            first = str(node.target).split(".")[0]
            if first in ("meta", "shape_env") or hasattr(fx.GraphModule, first):
                node.target = f"model_{node.target}"
            found[str(node.target)] = value
    return found if any(name.startswith("model_") for name in found) else root


def input_names(forward: Callable[..., Any], count: int) -> list[str]:
    """The names of the first `count` parameters of a model's forward, `xs_0`, ... of `*xs`.

    Raises:
        InputError: it takes fewer, or needs more.
    """
    parameters = list(inspect.signature(forward).parameters.values())
    names = [p.name for p in parameters if p.kind in POSITIONAL]
    needed = [p.name for p in parameters if p.default is p.empty
              and p.kind in (*POSITIONAL, inspect.Parameter.KEYWORD_ONLY)]  # fmt: skip
    rest = [p.name for p in parameters if p.kind is inspect.Parameter.VAR_POSITIONAL]
    if len(names) < count and rest:
        names += [f"{rest[0]}_{i}" for i in range(count - len(names))]
    check_count(needed or names[:1], count, len(names))  # all may have defaults
    return names[:count]


def check_count(names: list[str], given: int, most: int = 0) -> None:
    """That a model with inputs of these names can take `given` of them, at most `most`.

    Raises:
        InputError: it can't.
    """
    if not len(names) <= given <= max(most, len(names)):
        raise InputError(
            f"example_inputs: got {given} {'tensor' if given == 1 else 'tensors'}; the model's "
            f"forward takes {', '.join(names) or 'nothing'}.  Give a tuple with one example for "
            "each of these, in this order; several images of one input are one tensor [N, C, ...]"
        )


_TORCH = str(Path(torch.__file__).parent) + os.sep
_PACKAGE = str(Path(__file__).parent.parent) + os.sep  # naflow_fx, where passes/ is linked from
_MODELS = _PACKAGE + "models" + os.sep


def calling_line(stop: CodeType) -> str:
    """file:line of the innermost line of the model's own code that is being traced, or "".

    Frames inside that of `stop` are looked at.  torch.fx's own `record_stack_traces` formats every
    frame of every node, and imports torch.export and Inductor to leave some out.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code is not stop:
        if _is_model_code(frame.f_code.co_filename):
            return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def last_frame(stack: str) -> str:
    """file:line of the innermost line of the model's own code."""
    frames = re.findall(r'File "(.+?)", line (\d+)', stack)
    own = [frame for frame in frames if _is_model_code(frame[0])]
    return ":".join(own[-1]).rsplit("/", 1)[-1] if own else ""


def _is_model_code(file: str) -> bool:
    """Whether a file is neither torch's nor the compiler's."""
    return file.startswith(_MODELS) or not file.startswith((_TORCH, _PACKAGE))


def reason(error: Exception) -> str:
    """One line: file:line of the model's code where tracing stopped, and what was wrong there."""
    frames = [(f.filename, f.lineno) for f in traceback.extract_tb(error.__traceback__)]
    own = [frame for frame in frames if _is_model_code(frame[0])]
    file, line = (own or frames)[-1]
    return f"{file}:{line}: {first_line(error).split('. ')[0]}"
