"""copy_model: a model in eval mode, in a module tree of its own, without hooks and wrappers."""

from __future__ import annotations

import copy
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from naflow_fx.errors import TraceError
from naflow_fx.guards.wrappers import HOOKS, hooks_of, inside

Memo = dict[int, Any]
_MADE = ("weight", "bias")  # what hooks of pruning, weight and spectral norm compute


def evaluated(
    model: nn.Module, tensor: Callable[[Tensor], Tensor] | None = None, hooks: bool = False
) -> nn.Module:
    """A copy of the module tree in eval mode, every training flag off, without hooks or wrappers.

    Args:
        model: left untouched, whatever is done with the copy.
        tensor: what becomes of each parameter and buffer; None: the copy shares it.
        hooks: whether hooks stay.  Without them, those that compute a weight before every call
            (pruning, weight norm, equalised learning rate) have computed it once.

    Raises:
        TraceError: the model can't be copied, or a hook can't compute its weight.
    """
    memo: Memo = {id(t): t if tensor is None else _like(t, tensor(t)) for t in _tensors(model)}
    for module in model.modules() if not hooks else ():
        memo |= {id(getattr(module, k)): OrderedDict() for k in HOOKS if hasattr(module, k)}
    try:
        for module in reversed(list(model.modules())):  # a wrapper becomes what it wraps
            inner = inside(module)
            if inner is not None and not (hooks and hooks_of(module)):
                memo[id(module)] = copy.deepcopy(inner, memo)
        twin = copy.deepcopy(model, memo)
    except Exception as error:
        raise TraceError(f"{type(model).__name__} can't be copied (deepcopy): {error}") from error
    for module in filter(hooks_of, model.modules() if hooks else ()):
        if not hooks_of(memo[id(module)]):  # torch.compile's wrapper leaves them behind
            memo[id(module)].__dict__ |= {k: OrderedDict(getattr(module, k)) for k in HOOKS}
    for module in [m for m in memo.values() if isinstance(m, nn.Module)]:
        module.training = False  # not .eval(): some models override it; also those in plain lists
        _rebind(module, memo)
    if not hooks:
        for module in model.modules():
            _settle(module, memo[id(module)])
    return twin


@contextmanager
def writable(model: nn.Module) -> Iterator[None]:
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


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    """Parameters, buffers, and what modules keep in attributes, lists and dictionaries."""
    for module in model.modules():
        yield from (x for x in tree_leaves(list(vars(module).values())) if isinstance(x, Tensor))


def _like(before: Tensor, after: Tensor) -> Tensor:
    """`after`, detached, as the kind of tensor that `before` is."""
    if isinstance(before, nn.Parameter):
        return nn.Parameter(after.detach(), requires_grad=False)
    return after.detach()


def _rebind(module: nn.Module, memo: Memo) -> None:
    """Functions that were put on a module, and its hooks, speak of the copy's modules."""
    for owner in (vars(module), *(getattr(module, k) for k in HOOKS if hasattr(module, k))):
        for key, value in list(owner.items()):
            owner[key] = _moved(value, memo)


def _moved(value: Any, memo: Memo) -> Any:
    """A function, what it holds of the model led to the copy; anything else itself."""
    if not isinstance(value, types.FunctionType):
        return value
    if id(value) not in memo:
        closure = value.__closure__ or ()
        cells = tuple(types.CellType() for _ in closure)
        made = types.FunctionType(
            value.__code__, _globals(value, memo), value.__name__, None, cells
        )
        memo[id(value)] = made
        for cell, source in zip(cells, closure, strict=True):
            _fill(cell, source, memo)
        given = (value.__defaults__, value.__kwdefaults__)
        made.__defaults__, made.__kwdefaults__ = copy.deepcopy(given, memo)
    return memo[id(value)]


def _globals(function: types.FunctionType, memo: Memo) -> dict[str, Any]:
    """Its globals, with the copies of the model's modules and of their methods."""
    known = function.__globals__
    own = {k: known[k] for k in function.__code__.co_names if k in known}
    moved = {k: copy.deepcopy(v, memo) for k, v in own.items()
             if id(v) in memo and isinstance(v, nn.Module)
             or isinstance(v, types.MethodType) and id(v.__self__) in memo}  # fmt: skip
    return {**known, **moved} if moved else known


def _fill(cell: types.CellType, source: types.CellType, memo: Memo) -> None:
    try:
        held = source.cell_contents
    except ValueError:  # a name that has no value yet
        return
    try:
        function = isinstance(held, types.FunctionType)
        cell.cell_contents = _moved(held, memo) if function else copy.deepcopy(held, memo)
    except Exception:  # what can't be copied stays the model's own
        cell.cell_contents = held


def _settle(source: nn.Module, module: nn.Module) -> None:
    """Computes now, and once, what a hook of `source` computes before every call."""
    if not source._forward_pre_hooks or not any(_is_made(source, name) for name in _MADE):
        return
    before = dict(vars(module))
    with torch.no_grad():
        for key, hook in source._forward_pre_hooks.items():
            try:
                hook(module, (), *({},) * (key in source._forward_pre_hooks_with_kwargs))
            except Exception as error:
                raise TraceError(
                    f"{type(source).__name__}: its hook {_name(hook)} computes the weight, and "
                    f"fails without an input: {error}.  Remove the hooks, keeping the weight "
                    "(torch.nn.utils.prune.remove, remove_weight_norm, ...), then compile"
                ) from error
    for name, value in list(vars(module).items()):
        if isinstance(value, Tensor) and (name in _MADE or value is not before.get(name)):
            del module.__dict__[name]
            module.register_buffer(name, value.detach())


def _is_made(module: nn.Module, name: str) -> bool:
    """Whether a module's weight is no parameter of it but something computed from them."""
    if isinstance(vars(module).get(name), Tensor):
        return True
    of_torch = type(module).__module__.startswith("torch.nn.modules")
    return of_torch and not hasattr(module, name) and f"{name}_orig" in module._parameters


def _name(hook: Any) -> str:
    return str(getattr(hook, "__qualname__", type(hook).__name__))
