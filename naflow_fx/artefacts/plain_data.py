"""Checks what JSON files of strangers say against the types of a dataclass, once."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def made(kind: type[T], entries: Any) -> T:
    """An instance of a dataclass from a JSON object; lists become tuples and inner dataclasses.

    Raises:
        ValueError: not an object, an entry is missing or unknown, or of another type.
    """
    if not isinstance(entries, Mapping):
        raise ValueError(f"{kind.__name__}: got {type(entries).__name__}, wanted an object")
    hints, fields = get_type_hints(kind), dataclasses.fields(kind)  # type: ignore[arg-type]
    needed = {f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING}
    wrong = sorted(needed - set(entries)) + sorted(set(entries) - set(hints))
    if wrong:
        raise ValueError(f"{kind.__name__}: missing or unknown: {', '.join(wrong)[:200]}")
    found = {name: _converted(value, hints[name]) for name, value in entries.items()}
    for name, value in found.items():
        if not fits(value, hints[name]):
            raise ValueError(f"{kind.__name__}: {name} is {str(value)[:80]!r}")
    return kind(**found)


def _converted(value: Any, kind: Any) -> Any:
    if not isinstance(value, list):
        return value
    choices = (kind, *get_args(kind))  # the type itself, and those of a union
    inner = next((get_args(k)[0] for k in choices if get_origin(k) is tuple), Any)
    if dataclasses.is_dataclass(inner):
        return tuple(made(inner, item) for item in value)
    return tuple(_converted(item, inner) for item in value)


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a type that annotations of plain data are made of."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if origin is tuple:
        length = len(value) if isinstance(value, tuple) else -1
        wanted = (inner[0],) * length if inner[-1] is Ellipsis else inner
        return length == len(wanted) and all(map(fits, value, wanted))
    if origin is dict:
        return isinstance(value, dict) and all(fits(v, inner[1]) for v in value.values())
    if isinstance(value, bool) and kind is not bool:
        return False
    return isinstance(value, (int, float) if kind is float else kind)
