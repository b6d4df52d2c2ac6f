"""The ways to write a call of one operator, and the adapters that they share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.errors import RuleError
from naflow_fx.rules._shapes import tuple_of
from naflow_fx.rules.contract import Arguments, Function, parameters, same

NUMPY = {"axis": "dim", "keepdims": "keepdim", "x2": "other"}


def spellings(adapter: Function, *names: Any, in_place: bool = False) -> dict[Any, Function]:
    """Every traced form of an operator -> `adapter`.

    A name stands for ``torch.name``, ``F.name``, ``Tensor.name`` (a string) and
    ``aten.name.default``, as far as they exist, "name.overload" for those with that overload of
    aten.  What is no string stands for itself.

    Args:
        adapter: makes the arguments of ``forward`` of a call's, whichever way it is written.
        names: the operator's names.  Overloads are named, not searched: ``aten.view.dtype`` is
            no view, ``aten.max.other`` no reduction.
        in_place: whether ``name_`` is one of them, too.

    Raises:
        RuleError: a name that torch does not have.
    """
    found: list[Any] = []
    for name in names:
        found += _named(name, in_place) if isinstance(name, str) else [name]
    return dict.fromkeys(found, _by_torchs_names(adapter))


def _by_torchs_names(adapter: Function) -> Function:
    """`adapter` for calls that name parameters as NumPy does, too: torch takes them everywhere."""

    @functools.wraps(adapter)
    def arguments(*args: Any, **kwargs: Any) -> Any:
        return adapter(*args, **{NUMPY.get(name, name): value for name, value in kwargs.items()})

    return arguments


def called(forward: Function, *ways: Any) -> dict[str, Any]:
    """`targets` and `modules` of an operator that is called, in these ways, as its ``forward`` is.

    Module classes are ways, too: their attributes are named as the parameters.  Parameters of
    torch's that have no say are ignored.
    """
    adapter = same(forward, "inplace", "out", "cudnn_enable")
    kinds = [way for way in ways if isinstance(way, type)]
    names = [way for way in ways if not isinstance(way, type)]
    return {
        "targets": spellings(adapter, *names, in_place=True),
        "modules": dict.fromkeys(kinds, from_module(adapter)),
    }


def by_rank(adapt: Function, *names: str) -> dict[Any, Function]:
    """`spellings` in 1, 2 and 3 space dimensions: ``adapt(rank)`` for ``name.format(rank)``."""
    return {
        target: adapter
        for rank in (1, 2, 3)
        for target, adapter in spellings(adapt(rank), *(n.format(rank) for n in names)).items()
    }


def modules_by_rank(adapt: Function, name: str) -> dict[type, Function]:
    """The modules nn.<name>1d, 2d and 3d -> the adapters from them."""
    return {getattr(nn, f"{name}{rank}d"): from_module(adapt(rank)) for rank in (1, 2, 3)}


def per_axis(adapter: Callable[..., Arguments], *names: str) -> Function:
    """By rank: `adapter`, with one number for each space axis under each of these names."""

    def adapt(rank: int) -> Function:
        @functools.wraps(adapter)
        def arguments(*args: Any, **kwargs: Any) -> Arguments:
            found = adapter(*args, **kwargs)
            sizes = {name: found[name] for name in names if not isinstance(found[name], str)}
            return found | {name: tuple_of(size, rank) for name, size in sizes.items()}

        return arguments

    return adapt


def first(input: Any, *rest: Any, **options: Any) -> Arguments:
    """The first argument; the others have no say, or are known from the example."""
    return {"input": input}


def from_module(adapter: Function) -> Function:
    """The adapter from a module: what `adapter` makes of the parameters that the module has."""
    options = attributes(adapter)
    return lambda module: adapter(input=None, **options(module))


def attributes(function: Function) -> Callable[[Any], Arguments]:
    """Of a module, what has the name of a parameter; `training` is a mode, in eval everywhere."""
    names = [name for name in parameters(function) if name != "training"]
    return lambda module: {n: getattr(module, n) for n in names if hasattr(module, n)}


def _named(spelled: str, in_place: bool) -> list[Any]:
    name, _, overload = spelled.partition(".")
    found: list[Any] = []
    for each in (name, f"{name}_") if in_place else (name,):
        found += [getattr(place, each) for place in (torch, F) if hasattr(place, each)]
        found += [each] if hasattr(Tensor, each) else []
        packet = getattr(torch.ops.aten, each, None)
        found += [getattr(packet, overload or "default", None)]
    if not any(found) or (overload and found[-1] is None):
        raise RuleError(f"torch has no operator {spelled!r}")
    return [target for target in found if target is not None]
