"""Reading files of torch.save without running what is in them.

`read` first asks torch's own tensors-only reader. What that refuses, such as a file that holds a
training script's objects beside the weights, goes through `torch.load` with an unpickler of ours:
tensors and plain containers are built, everything else becomes an `Inert` record of what the file
says. No name of the file is imported, and nothing that it names is called.
"""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from os import PathLike
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch._utils import _rebuild_tensor

from naflow_fx.errors import ModelError, raised_as


class Inert:
    """What a file says of an object of a class that is not built: its name and contents.

    `name`: module and class, as the file has it. `args`: what its constructor, or the function,
    was to be called with. `state`: its attributes, for most objects a dictionary; of a module,
    `tensors()` finds the parameters and buffers. `items`: what was put into it, as pairs for a
    mapping.
    """

    __slots__ = ("args", "items", "state")
    args: tuple[Any, ...]
    state: Any
    items: list[Any]
    name = ""
    dump_patches = False  # torch asks this of classes whose source the file has

    def __new__(cls, *args: Any, **kwargs: Any) -> Inert:  # noqa: D102
        made = super().__new__(cls)
        made.args, made.state, made.items = (*args, *kwargs.values()), None, []
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    def append(self, value: Any) -> None:
        """Keep what the file appends to a list of this class, or adds to a set."""
        self.items.append(value)

    add = append

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} stands for an object of a file; it can't be pickled")

    def __deepcopy__(self, memo: dict[int, Any]) -> Inert:
        return self

    def __repr__(self) -> str:
        return f"<inert {self.name}>"

    def tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Dotted name and tensor of every parameter and buffer, if this was an nn.Module."""
        state = self.state if isinstance(self.state, Mapping) else {}
        for kind in ("_parameters", "_buffers"):
            for key, value in (state.get(kind) or {}).items():
                if isinstance(value, Tensor):
                    yield f"{prefix}{key}", value
        for key, value in (state.get("_modules") or {}).items():
            if isinstance(value, Inert):
                yield from value.tensors(f"{prefix}{key}.")


def read(path: str | PathLike[str]) -> Any:
    """What the file holds, on the CPU: tensors, plain containers, numbers, strings, `Inert`s.

    Raises ModelError, in one line, if the file is missing, unreadable, damaged, cut short, or of
    another format.
    """
    check_readable(path)
    unread = ModelError(
        f"{path}: not a complete checkpoint of torch.save; damaged, cut short, or of another format"
    )
    # a damaged file makes the readers raise nearly anything
    with raised_as(unread, Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of archives and sources; errors tell what matters
        return plain(_read(path))


def check_readable(path: str | PathLike[str]) -> None:
    """ModelError if there is no such file, or it can't be read."""
    try:
        open(path, "rb").close()
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file; check the path") from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error


def _read(path: str | PathLike[str]) -> Any:
    """Torch's tensors-only reader; where it refuses, ours."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # another class in it, or Python 2's strings; anything from damaged files
        data = io.BytesIO(Path(path).read_bytes())
    _check_no_program(path, data)
    reader = SimpleNamespace(
        __name__="inert",
        Unpickler=InertUnpickler,
        load=lambda file, **how: InertUnpickler(file, **how).load(),
    )
    latin = "latin1"  # of Python 2's strings: every byte a character, ASCII as it is
    return torch.load(
        data, "cpu", pickle_module=reader, weights_only=False, mmap=False, encoding=latin
    )


def _check_no_program(path: str | PathLike[str], data: io.BytesIO) -> None:
    """Nothing unless torch.load would hand the file to TorchScript, by torch.load's own test.

    Its third way, the tar archives of 2016, is closed to what has no file number, as `data`.
    """
    if data.getvalue()[:4] == b"PK\3\4":
        if "constants.pkl" in torch._C.PyTorchFileReader(data).get_all_records():
            raise ModelError(
                f"{path}: a TorchScript archive, which is a program; save its weights "
                "with torch.save(model.state_dict(), path)"
            )
        data.seek(0)


class InertUnpickler(pickle.Unpickler):
    """Unpickles tensors and plain containers; every other name becomes a class of `Inert`.

    `torch.load` subclasses it, and looks up storages itself (`torch.FloatStorage` and the like).
    """

    def find_class(self, module: str, name: str) -> Any:
        """A constructor of ours, or an inert class that is made here and knows its name alone."""
        dotted = f"{module}.{name}"
        if dotted in BUILT:
            return Call(BUILT[dotted])
        if module == "torch" and isinstance(vars(torch).get(name), torch.dtype):
            return vars(torch)[name]  # not getattr: that may import a part of torch
        return type("Stub", (Inert,), {"__slots__": (), "__module__": "inert", "name": dotted})


class Call(partial[Any]):
    """A function that a file may call, and do nothing else with.

    Wrapped, so that no file gets hold of a function or class whose attributes it could set.
    """

    __slots__ = ()

    def __setstate__(self, state: Any) -> NoReturn:
        raise pickle.UnpicklingError("the file sets the state of a function")


class PlainDict(dict[Any, Any]):
    """A dictionary whose attributes (a state dict's `_metadata`) are not taken over."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Tensor:
    """The tensor of a storage, without gradient and hooks."""
    return _rebuild_tensor(storage, offset, size, stride)  # type: ignore[no-any-return, no-untyped-call]


def _parameter(data: Tensor, *rest: Any) -> Tensor:
    """The tensor of a parameter."""
    return Tensor.detach(data)


def _reconstruct(cls: Any, *rest: Any) -> Inert:
    """An object as protocols 0 and 1 make it: `copyreg._reconstructor(cls, object, None)`."""
    if not (isinstance(cls, type) and issubclass(cls, Inert)):
        raise pickle.UnpicklingError(f"the file reconstructs {cls!r}")
    return cls(*rest[1:])


def _encode(text: str, encoding: str) -> bytes:
    """Bytes as protocol 2 writes them."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"the file encodes as {encoding!r}")
    return str.encode(text, "latin1")


# Everything that a file can have called, by the name that it uses; Python 2's names too.
BUILT: Mapping[str, Callable[..., Any]] = {
    "collections.OrderedDict": PlainDict,
    "torch.Size": tuple,
    "_codecs.encode": _encode,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.nn.parameter.Parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "copyreg._reconstructor": _reconstruct,
    "copy_reg._reconstructor": _reconstruct,
    "builtins.set": set,
    "__builtin__.set": set,
    "builtins.frozenset": frozenset,
    "__builtin__.frozenset": frozenset,
    "builtins.complex": complex,
    "__builtin__.complex": complex,
    "builtins.bytearray": bytearray,
}


def plain(content: Any) -> Any:
    """`content` with every dictionary a dict, every list, tuple and set of exactly that type.

    Tensors come without gradient and hooks; shared and cyclic parts stay so.
    """
    return _plain(content, {})


def _plain(value: Any, done: dict[int, Any]) -> Any:
    if id(value) in done:
        return done[id(value)]
    made: Any = value
    if isinstance(value, dict):
        made = done[id(value)] = {}
        for key, item in list(dict.items(value)):
            made[_plain(key, done)] = _plain(item, done)
    elif isinstance(value, list):
        made = done[id(value)] = []
        made.extend(_plain(item, done) for item in list.__iter__(value))
    elif isinstance(value, (tuple, set, frozenset)):
        kind = next(k for k in (tuple, set, frozenset) if isinstance(value, k))
        made = done[id(value)] = kind(_plain(item, done) for item in value)
    elif isinstance(value, Inert):
        done[id(value)] = value
        value.args, value.state = _plain(value.args, done), _plain(value.state, done)
        value.items = _plain(value.items, done)
    elif isinstance(value, Tensor):
        made = done[id(value)] = Tensor.detach(value)
    return made
