"""What an artefact from strangers may hold, checked before anything loads it.

`torch.export.load` unpickles, evaluates symbolic expressions and guards as Python, and finds
operators by any dotted name below `torch`; a compiled package among its files is machine code.
What the exporter writes needs none of that, so all else is refused.  An AOTInductor package is
machine code and nothing else.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from naflow_fx.artefacts.metadata import UNREADABLE, Kind, member
from naflow_fx.errors import ArtefactError, raised_as

FILES = re.compile(
    r"data/weights/(weight_\d+|\w+_weights_config\.json)"
    r"|data/constants/(tensor_\d+|\w+_constants_config\.json)"
    r"|data/sample_inputs/\w+\.pt|models/\w+\.json|extra/[\w.]+"
    r"|archive_format|archive_version|version|byteorder|\.data/\w+"
)
CALLS = re.compile(
    r"torch\.ops\.(aten|prims)\.\w+\.\w+|torch\.sym_(max|min|int|float|not|ite|sum)"
    r"|torch\.ops\.higher_order\.invoke_subgraph|math\.(ceil|floor|trunc)"
    r"|_operator\.(getitem|add|sub|mul|truediv|floordiv|mod|pow|neg|eq|ne|lt|le|gt|ge|and_|or_)"
)
EXPRESSION = re.compile(
    r"(Symbol\('[a-z]+\d+'(, \w+=(True|False))*\)|Integer\(-?\d+\)|Rational\(-?\d+, \d+\)"
    r"|(Add|Mul|Pow|Max|Min|Mod|FloorDiv|CeilToInt|Equality|Unequality|GreaterThan|LessThan"
    r"|StrictGreaterThan|StrictLessThan)(?=\()|[(), ]|true|false|-?\d+)+"
)
LARGEST = 1 << 29  # bytes of a program as JSON; that of resnet18 at every call site has 12 MB
NAME = re.compile(r"[a-z]+\d+")  # of a symbol
STORED = re.compile(r"(weight|tensor)_\d+")
SAMPLE = "data/sample_inputs/"
IF_TRUSTED = "if you trust who made it, load(path, trusted=True), or --trusted"


def check_safe(path: Path, kind: Kind) -> None:
    """Nothing if loading the file runs nothing of it.

    Raises:
        ArtefactError: it is or holds what could run, and what that is.
    """
    if kind == "aoti":
        raise ArtefactError(f"{path}: an AOTInductor package, machine code that runs when loaded; "
                            f"{IF_TRUSTED}")  # fmt: skip
    if kind == "pt2":
        check_archive(path)


def check_archive(path: Path) -> None:
    """Nothing if torch.export.load can read the file without running anything of it.

    Raises:
        ArtefactError: it holds what could run, and what that is.
    """
    damaged = ArtefactError(f"{path}: damaged, or of another version of torch (…)")
    with raised_as(damaged, *UNREADABLE), zipfile.ZipFile(path) as archive:
        found = next(_offences(archive), None)
    if found:
        raise ArtefactError(
            f"{path}: holds {found}, which could run code when loaded; nothing "
            "that naflow_fx exports does.  Export it again, or, "
            f"{IF_TRUSTED}"
        )


def _offences(archive: zipfile.ZipFile) -> Iterator[str]:
    """What could run code, as text."""
    for entry in archive.namelist():
        name = entry.partition("/")[2]
        if not FILES.fullmatch(name):
            yield f"the file {name[:80]!r}"
        elif name.startswith(SAMPLE):
            if not _is_plain(member(archive, entry, LARGEST)):
                yield "a pickle of more than tensors"
        elif name.endswith(".json") and not name.startswith("extra/"):
            yield from _in_json(json.loads(member(archive, entry, LARGEST)))


def _is_plain(data: bytes) -> bool:
    """Whether a pickle holds tensors and containers only."""
    try:
        torch.load(io.BytesIO(data), weights_only=True, map_location="meta")
    except Exception:  # an unpickler raises nearly anything
        return not data
    return True


def _in_json(value: Any) -> Iterator[str]:
    """The same of a program or of a table of weights."""
    if isinstance(value, dict):
        yield from _in_entry(value)
        value = list(value.values())
    for item in value if isinstance(value, list) else ():
        yield from _in_json(item)


def _in_entry(value: dict[str, Any]) -> Iterator[str]:
    if value.get("use_pickle"):
        yield "a pickled tensor"
    call = value.get("target") if "inputs" in value else None
    texts = [("the object", STORED, value.get("path_name")), ("a call of", CALLS, call),
             ("the expression", EXPRESSION, value.get("expr_str"))]  # fmt: skip
    texts += [("the symbol", NAME, name) for name in value.get("range_constraints") or ()]
    for what, known, text in texts:
        if text is not None and not known.fullmatch(str(text)):
            yield f"{what} {str(text)[:80]!r}"
