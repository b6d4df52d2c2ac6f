"""Records: outputs with fields (named tuples, dataclasses, other objects) as plain containers.

A program returns dictionaries, lists, tuples and tensors only, so that its files need nobody's
classes.  What the model's own output looks like is kept as a `form`, and given back around it.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from naflow_fx.errors import TargetError


class Slot:
    """Where a form has a tensor."""


LEAVES = (Tensor, fx.Proxy, fx.Node, Slot)


def plain(value: Any) -> Any:
    """The same with records as dictionaries of the fields that hold tensors."""
    fields = _fields(value)
    if fields is not None:
        return {name: plain(part) for name, part in fields.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(part) for part in value)
    return value


def pick(value: Any, output: str | int | None) -> Any:
    """The part of an output that is meant: by key or index; None: the only one, or the whole.

    Raises:
        TargetError: no such part, with those that there are.
    """
    parts = plain(value)
    if parts is None:  # a flow of somebody's own maps
        return None
    if isinstance(parts, LEAVES):
        if output not in (None, 0):
            raise TargetError(f"output={output!r}: the model returns one tensor; leave it out")
        return value
    named = parts if isinstance(parts, dict) else dict(enumerate(parts))
    found = {key: part for key, part in named.items() if _holds_tensor(part)}
    if output is None:
        return next(iter(found.values())) if len(found) == 1 else value
    if output not in found and type(output) is int and -len(found) <= output < len(found):
        return list(found.values())[output]
    if output not in found:
        known = ", ".join(map(repr, found))
        raise TargetError(f"output={output!r}: the model has no such output; it has {known}")
    return found[output]


def form_of(value: Any) -> Any:
    """The value without its tensors: what `like` needs to make another."""
    return map_tensors(lambda _: Slot(), value)


def like(form: Any, parts: Any) -> Any:
    """The plain `parts` in records of the form's kinds; no form: as they are."""
    return parts if form is None else _rebuilt(form, parts)


def map_tensors(function: Callable[[Tensor], Any], value: Any) -> Any:
    """A value of the same kinds, each tensor replaced by what the function makes of it."""
    return _rebuilt(value, tree_map_only(LEAVES, function, plain(value)))


def _fields(value: Any) -> dict[str, Any] | None:
    """The fields of a record that hold tensors, all of a dictionary; None for anything else."""
    if isinstance(value, (*LEAVES, nn.Module, type)):
        return None
    if type(value) is dict:
        return value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        found = dict(zip(value._fields, value, strict=True))
    elif dataclasses.is_dataclass(value):
        found = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif isinstance(value, Mapping):
        found = dict(value)
    else:
        found = getattr(value, "__dict__", {})
    found = {name: part for name, part in found.items() if _holds_tensor(part)}
    return found or None


def _holds_tensor(value: Any) -> bool:
    return any(isinstance(leaf, LEAVES) for leaf in tree_leaves(plain(value)))


def _rebuilt(form: Any, parts: Any) -> Any:
    """`parts` in containers of the kinds of `form`, or of a value of the same structure."""
    fields = _fields(form)
    if fields is not None:
        made = {name: _rebuilt(field, parts[name]) for name, field in fields.items()}
        return made if type(form) is dict else _copy_with(form, made)
    if isinstance(form, (list, tuple)):
        return type(form)(_rebuilt(f, p) for f, p in zip(form, parts, strict=True))
    return parts


def _copy_with(form: Any, made: dict[str, Any]) -> Any:
    """A copy of a record with other fields; no constructor runs."""
    if isinstance(form, tuple):
        return form._replace(**made)  # type: ignore[attr-defined]
    record = copy.copy(form)
    for name, part in made.items():
        if not isinstance(form, Mapping):
            object.__setattr__(record, name, part)
        elif dataclasses.is_dataclass(form):  # of Hugging Face: sets the item, too
            setattr(record, name, part)
        else:
            record[name] = part
    return record
