"""What an artefact says of itself, and reading it from the file without running anything.

A ``.pt2`` of torch.export holds it as the extra file ``naflow_fx.json``, an AOTInductor package
among its own metadata, an ONNX model in ``metadata_props``.  Reading needs the standard library
alone.
"""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from naflow_fx.artefacts.plain_data import made
from naflow_fx.errors import ArtefactError, PhotoError

if TYPE_CHECKING:
    from naflow_fx.models.preprocess import Preprocessing

Kind = Literal["pt2", "aoti", "onnx"]
KEY = "naflow_fx"  # of the metadata of packages and ONNX models
EXTRA = "naflow_fx.json"  # the extra file of a .pt2
MAPS = "maps."  # how names of maps begin
LARGEST = 1 << 24  # bytes of metadata; those of a thousand call sites are a tenth of a megabyte
FORMAT = 1  # grows when the meaning of an entry changes
UNREADABLE = (zipfile.BadZipFile, zlib.error, ValueError, KeyError, RecursionError, EOFError,
              NotImplementedError, RuntimeError)  # fmt: skip
OUT = "_out"  # behind an ONNX output's name that is an input's name too
KINDS: dict[str, str] = {
    "pt2": "torch.export program",
    "aoti": "AOTInductor package",
    "onnx": "ONNX model",
}


@dataclass(frozen=True)
class Value:
    """One input or output: its name, shape ("N" is the batch) and dtype such as "float32"."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} [{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Metadata:
    """The facts of one artefact.

    Attributes:
        kind: "pt2", "aoti" or "onnx".
        inputs, outputs: in the order of the flat call; outputs are named `output`, `score`,
            `target` (in ONNX `target_out`), `maps.<call site>`, `residual.<call site>`, ...
        call_sites: names, in forward order.
        target: what is explained: ``{"kind": "class"}``, ``{"kind": "function", "name": ...}``,
            or ``{"kind": "similarity", ...}`` with the similarity's own choices.
        options: of `naflow_fx.compile`, as plain data.
        device: where it runs: "cpu" or "cuda".  A .pt2 can be moved, a package can't.
        preprocessing: fields of `naflow_fx.models.Preprocessing`; None if not told.
        class_names: in the order of the classes; None if not told.
        info: what else the exporter told, such as the model's name.
        versions: package -> version.
    """

    kind: Kind
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    call_sites: tuple[str, ...]
    target: dict[str, Any]
    options: dict[str, Any]
    device: Literal["cpu", "cuda", "mps", "xpu"]
    preprocessing: dict[str, Any] | None = None
    class_names: tuple[str, ...] | None = None
    info: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """As one line of JSON."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, ensure_ascii=False)

    def output(self, name: str) -> Value | None:
        """The output of that name, if there is one."""
        return next((value for value in self.outputs if value.name == name), None)


def parse(text: str, path: str | Path = "metadata") -> Metadata:
    """The metadata of a JSON text.

    Raises:
        ArtefactError: no such JSON, or of a later version of naflow_fx.
    """
    try:
        entries = json.loads(text)
        number = entries.pop("format")
        if number > FORMAT:
            raise ArtefactError(f"{path}: metadata of format {number}, this naflow_fx reads up to "
                                f"{FORMAT}; pip install --upgrade naflow-fx")  # fmt: skip
        found = made(Metadata, entries)
        _check_sense(found)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtefactError(f"{path}: its metadata can't be read ({error!r:.300})") from error
    return found


def _check_sense(found: Metadata) -> None:
    """ValueError for what the types allow and no writer writes."""
    names = {value.name for value in found.outputs}
    target = found.target.get("kind")
    if target not in ("class", "function", "similarity"):
        raise ValueError(f"target is {target!r}")
    if not found.inputs or not {"output", "score"} <= {n.partition(".")[0] for n in names}:
        raise ValueError("it names no input, output or score")
    if not all(isinstance(size, int) for value in found.inputs for size in value.shape[1:]):
        raise ValueError("an input's size is open")
    if len(names) != len(found.outputs) or not {f"{MAPS}{s}" for s in found.call_sites} <= names:
        raise ValueError("its outputs and call sites don't go together")


def preprocessing_of(path: str | Path, found: Metadata) -> Preprocessing | None:
    """How photos become inputs, if the artefact in the file tells.

    Raises:
        ArtefactError: what it tells is no `Preprocessing`.
    """
    from naflow_fx.models.preprocess import Preprocessing

    if found.preprocessing is None:
        return None
    try:
        return made(Preprocessing, found.preprocessing)
    except (ValueError, PhotoError) as error:
        raise ArtefactError(f"{path}: its metadata can't be read ({error})") from error


def read(path: str | Path) -> Metadata:
    """The metadata of the artefact in a file, whatever its kind.

    Raises:
        ArtefactError: not an artefact that naflow_fx wrote.  OSError: it can't be read.
    """
    path = Path(path)
    if path.is_dir():
        raise ArtefactError(f"{path}: a folder; wanted a .pt2 or .onnx file")
    with path.open("rb") as file:
        text = _of_archive(file) if zipfile.is_zipfile(path) else _of_onnx(file)
    if text is None:
        raise ArtefactError(
            f"{path}: not an artefact of naflow_fx (a .pt2 or .onnx file with its "
            "metadata); make one with `naflow-fx export` or "
            "explainer.export(path)"
        )
    return parse(text, path)


def _of_archive(file: IO[bytes]) -> str | None:
    """The JSON text in the zip archive of a .pt2 or a package."""
    with suppress(*UNREADABLE, AttributeError), zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            if name.endswith(f"/extra/{EXTRA}"):
                return member(archive, name, LARGEST).decode()
            if name.endswith("_metadata.json") and "/aotinductor/" in name:
                text = json.loads(member(archive, name, LARGEST)).get(KEY)
                if isinstance(text, str):
                    return text
    return None


def member(archive: zipfile.ZipFile, name: str, largest: int) -> bytes:
    """The bytes of an archive's member; ValueError for more than `largest`, before reading them."""
    size = archive.getinfo(name).file_size
    if size > largest:
        raise ValueError(f"{name[-80:]} holds {size} bytes; more than {largest} are not read")
    return archive.read(name)


def _of_onnx(file: IO[bytes]) -> str | None:
    """The JSON text in a ModelProto's metadata_props (field 14), other fields skipped."""
    with suppress(ValueError):
        for number, size in _fields(file):
            if number == 14 and size <= LARGEST:
                entry = io.BytesIO(file.read(size))
                texts = {field: entry.read(length).decode() for field, length in _fields(entry)}
                if texts.get(1) == KEY:
                    return texts.get(2)
            else:
                file.seek(size, 1)
    return None


def _fields(file: IO[bytes]) -> Iterator[tuple[int, int]]:
    """Number and length of each length-delimited field of a protobuf message.

    The reader must move the file to the field's end.  Numbers are skipped; ONNX has no others here.
    """
    while (key := _varint(file)) is not None:
        number, wire = key >> 3, key & 7
        if wire == 0:
            _varint(file)
        elif wire == 2:
            yield number, _varint(file) or 0
        else:
            raise ValueError("not a protobuf message")


def _varint(file: IO[bytes]) -> int | None:
    """A protobuf integer of up to 64 bits; None at the end of the file."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    raise ValueError("not a protobuf message")
