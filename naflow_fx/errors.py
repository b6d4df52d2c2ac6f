"""Every error this package raises on purpose: what, where, got and wanted, what to do next."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

BY_ITSELF = (
    "Every image is explained by itself: take what is computed over the batch dimension out of "
    "the model.  A bag or a pair of images can be several inputs, forward(self, a, b), with the "
    "encoder called on each"
)  # what to do about a model that mixes the images of a batch


class NaflowError(Exception):
    """Base of all errors that a user can act on."""


class NaflowWarning(UserWarning):
    """A result that is right, and less than a user may expect."""


class TraceError(NaflowError):
    """The model could not be turned into a graph."""


class UnsupportedOperator(NaflowError):
    """Nodes of the graph have no rule; lists every one of them."""


class GraphError(NaflowError):
    """The traced graph, or a user's request about it (layers, sites), does not fit."""


class OptionError(NaflowError):
    """An option of `compile` or `Inverse` has a value that it cannot have."""


class TargetError(NaflowError):
    """A target (class index, list, callable) does not fit the model's output."""


class InputError(NaflowError):
    """An input tensor's shape, size or dtype is not what was compiled."""


class RuleError(NaflowError):
    """A rule is malformed, or claims an operator that another rule has."""


class ArtefactError(NaflowError):
    """An artefact can't be written or read: an operator, an extra, a compiler or a file."""


class FlowError(NaflowError):
    """An argument of a result's method (overlay, save, upsampled) does not fit."""


class EvaluationError(NaflowError):
    """Data, explainers or metrics of an evaluation do not fit each other, or an extra lacks."""


class DatasetError(NaflowError):
    """A batch run's source, explainer or output folder does not fit, or another run has it."""


class ModelError(NaflowError):
    """A model name or a checkpoint is not what it should be."""


class PhotoError(NaflowError):
    """A photo is missing, truncated, or not a picture."""


def required(*names: str, extra: str, what: str, error: type[NaflowError]) -> Any:
    """A module of an extra, or a tuple of several.

    Raises:
        NaflowError: of the kind `error`, where some can't be imported: which, and what installs
            them.
    """
    found, missing, why = [], [], None
    for name in names:
        try:
            found.append(importlib.import_module(name))
        except ImportError as cause:
            missing.append(name.partition(".")[0])
            why = cause
    if missing:
        raise error(f"{what} needs {', '.join(missing)}, which can't be imported ({why}); "
                    f"pip install 'naflow-fx[{extra}]'") from why  # fmt: skip
    return found[0] if len(found) == 1 else tuple(found)


def unfit(error: type[NaflowError], call: str, wanted: str, **given: object) -> NaflowError:
    """The error, of the kind `error`, of an option's value that a call can't take."""
    values = ", ".join(f"{name}={value!r}" for name, value in given.items())
    return error(f"{call}({values}): wanted {wanted}")


def one_of(choices: Iterable[str]) -> str:
    """What is wanted where there are names to choose from."""
    return f"one of {', '.join(map(repr, choices))}"


def check_choice(
    error: type[NaflowError], call: str, choices: Iterable[Any], **given: object
) -> None:
    """Raises `unfit` for a value that is none of the choices."""
    for name, value in given.items():
        if value not in choices:
            raise unfit(error, call, one_of(choices), **{name: value})


def check_positive(error: type[NaflowError], call: str, **given: object) -> None:
    """Raises `unfit` for what is no whole number, or below 1."""
    for name, value in given.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise unfit(error, call, "an integer >= 1", **{name: value})


def first_line(error: BaseException) -> str:
    """The first line of an error that says something, without colours."""
    lines = re.sub(r"\x1b\[[\d;]*m", "", str(error)).splitlines()
    return next((line.strip() for line in lines if line.strip()), type(error).__name__)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python's or torch's says that memory is short."""
    words = ("out of memory", "can't allocate memory")
    torchs = isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    return torchs or isinstance(error, MemoryError)


@contextmanager
def raised_as(error: NaflowError, *causes: type[BaseException]) -> Iterator[None]:
    """Errors of the classes `causes` are raised as `error`, with their first line as its "…".

    Errors of ours, and that memory is short, are raised as they are.
    """
    try:
        yield
    except causes as cause:
        if isinstance(cause, NaflowError) or is_out_of_memory(cause):
            raise
        raise type(error)(str(error).replace("…", first_line(cause))) from cause


def table(rows: Sequence[Sequence[str]], indent: str = "  ") -> str:
    """Rows of text as left-aligned columns, one row a line."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(indent + line.rstrip() for line in lines)
