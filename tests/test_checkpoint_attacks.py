"""Checkpoint files that try to run code."""

from __future__ import annotations

import builtins
import contextlib
import importlib
import io
import os
import pickle
import sys
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_files import WAYS, assert_same, state_of, tiny
from torch import Tensor, nn

from naflow_fx import models
from naflow_fx.errors import ModelError
from naflow_fx.models import unpickle


class Runs:
    """Pickles as a call of `function(*args)`."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


def attacks(mark: Path) -> dict[str, Any]:
    """Objects whose unpickling makes the file `mark`, by name."""
    command, code = f"touch '{mark}'", f"open({str(mark)!r}, 'w')"
    inner = io.BytesIO()
    torch.save(Runs(os.system, command), inner)
    rebuild: Any = torch._tensor._rebuild_from_type_v2
    return {
        "os.system": Runs(os.system, command),
        "eval": Runs(eval, code),
        "exec": Runs(exec, f"import os; os.mkdir({str(mark)!r})"),
        "open": Runs(open, str(mark), "w"),
        "getattr": Runs(getattr, Runs(__import__, "os"), "system"),
        "nested call": Runs(map, os.system, [command]),
        "import": Runs(importlib.import_module, "antigravity"),
        "pickle.loads": Runs(pickle.loads, pickle.dumps(Runs(os.system, command))),
        "torch.load": Runs(torch.storage._load_from_bytes, inner.getvalue()),
        "torch.hub": Runs(torch.hub.load, str(mark.parent), "model"),
        "rebuild": Runs(rebuild, os.system, Tensor, (command,), {}),
        "in a dictionary's keys": {Runs(os.system, command): 1},
        "in a list": [torch.ones(2), [Runs(os.system, command)]],
    }


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", attacks(Path("mark")))
def test_nothing_in_a_file_is_called(name: str, way: str, tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / "bad.pth"
    source, model = tiny(), tiny()
    content = {"state_dict": state_of(source), "extra": attacks(mark)[name]}
    torch.save(content, path, **WAYS[way])
    modules = set(sys.modules)
    found = models.load_checkpoint(model, path)  # the weights are there, and the rest is inert
    assert not mark.exists() and "antigravity" not in set(sys.modules) - modules
    assert "extra" in found.extras
    assert_same(model, source.state_dict())


def test_the_attacks_work_where_pickles_run(tmp_path: Path) -> None:
    """What the test above feeds would run in an ordinary unpickler."""
    for name in ("os.system", "exec", "pickle.loads", "torch.load", "rebuild"):
        mark = tmp_path / f"mark of {name}"
        data = pickle.dumps(attacks(mark)[name])
        with contextlib.suppress(Exception):  # what is done with the call's result
            pickle.loads(data)
        assert mark.exists(), name


def test_inert_objects_stay_inert_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "bad.pth"
    torch.save({"state_dict": state_of(tiny()), "x": Runs(os.system, "false")}, path)
    stub = models.load_checkpoint(tiny(), path).extras["x"]
    assert stub.name in ("posix.system", "nt.system") and stub.args == ("false",)
    assert repr(stub) == f"<inert {stub.name}>"
    with pytest.raises(TypeError, match="stands for an object of a file"):
        pickle.dumps(stub)


def program(*parts: bytes) -> bytes:
    """A pickle of protocol 2 written by hand: it drops the last value and gives {}."""
    return b"\x80\x02" + b"".join(parts) + b"0}."


def name_of(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


SETS_X = b"N}U\x01xK\x01s\x86b"  # BUILD with (None, {"x": 1}): setattr(object, "x", 1)
BY_HAND = {
    "attribute of a function": name_of("torch._utils", "_rebuild_tensor_v2") + SETS_X,
    "defaults of a function": name_of("torch._utils", "_rebuild_tensor_v2")
    + b"N}U\x0c__defaults__)s\x86b",
    "attribute of a container's class": name_of("collections", "OrderedDict") + SETS_X,
    "attribute of a stub's class": name_of("os", "system") + SETS_X,
    "attribute of a parameter's class": name_of("torch.nn.parameter", "Parameter") + SETS_X,
    "call of a stub's result": name_of("os", "getcwd") + b")R)R",
    "call of a type that is none": name_of("torch", "float32") + b")R",
    "reconstruction of a real type": name_of("copy_reg", "_reconstructor")
    + name_of("torch", "float32")
    + b"NN\x87R",
    "encoding with another codec": name_of("_codecs", "encode") + b"U\x01xU\x05rot13\x86R",
    "a copy of nothing": b"h\x07",
}


def test_a_harmless_program_is_read(tmp_path: Path) -> None:
    """What the next test is refused for is not the way its files are made."""
    dotted = "_rebuild_tensor_v2.__globals__.clear"
    deep = b"\x8c\x0ctorch._utils\x8c" + bytes([len(dotted)]) + dotted.encode() + b"\x93)R"
    for part in (b"N", name_of("os", "getcwd") + b")R", name_of("torch", "float32"), deep):
        path = archive(tmp_path / "hand.pth", program(part))
        with pytest.raises(ModelError, match="no state dict in it"):
            models.load_checkpoint(tiny(), path)


@pytest.mark.parametrize("name", BY_HAND)
def test_programs_written_by_hand_change_nothing(name: str, tmp_path: Path) -> None:
    before = dict(vars(torch._utils._rebuild_tensor_v2))
    defaults = torch._utils._rebuild_tensor_v2.__defaults__
    path = archive(tmp_path / "hand.pth", program(BY_HAND[name]))
    with pytest.raises(ModelError, match="not a complete checkpoint"):
        models.load_checkpoint(tiny(), path)
    assert vars(torch._utils._rebuild_tensor_v2) == before
    assert torch._utils._rebuild_tensor_v2.__defaults__ == defaults
    assert not hasattr(OrderedDict, "x") and not hasattr(nn.Parameter, "x")
    assert not hasattr(unpickle.Inert, "x") and not hasattr(unpickle.Call, "x")


def archive(path: Path, data: bytes, **more: bytes) -> Path:
    """A zip file of torch's with this pickle in it."""
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("archive/data.pkl", data)
        made.writestr("archive/version", "3\n")
        made.writestr("archive/byteorder", "little")
        for name, content in more.items():
            made.writestr(f"archive/{name.replace('_', '.')}", content)
    return path


def test_programs_of_torchscript_are_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "script.pt", pickle.dumps({}, 2), constants_pkl=pickle.dumps((), 2))
    with pytest.raises(ModelError, match="TorchScript archive") as caught:
        models.load_checkpoint(tiny(), path)
    assert "\n" not in str(caught.value)


def test_tar_archives_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's first format: a tar archive, which torch.load would unpack."""
    path = tmp_path / "old.pth.tar"
    with tarfile.open(path, "w") as made:
        for name in ("storages", "tensors", "pickle"):
            data = pickle.dumps(0, 2)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            made.addfile(member, io.BytesIO(data))
    monkeypatch.setattr(tarfile.TarFile, "extract", lambda *_, **__: pytest.fail("unpacked"))
    with pytest.raises(ModelError, match="not a complete checkpoint"):
        models.load_checkpoint(tiny(), path)


def test_what_may_be_built_is_a_short_list() -> None:
    allowed = {name.rpartition(".")[0] for name in unpickle.BUILT}
    assert allowed == {
        "collections", "torch._utils", "torch.nn.parameter", "torch", "copyreg", "copy_reg",
        "_codecs", "builtins", "__builtin__",
    }  # fmt: skip
    for value in vars(builtins).values():
        assert value in (set, frozenset, bytearray, complex, tuple) or value not in list(
            unpickle.BUILT.values()
        )
