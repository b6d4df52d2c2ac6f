"""Checkpoint files as the original repositories save them, and files that try to run code.

Objects of those repositories' classes are made here from modules that are gone when loading.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import io
import os
import pickle
import struct
import sys
import tarfile
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from naflow_fx import models
from naflow_fx.errors import ModelError
from naflow_fx.models import checkpoint, unpickle

LIB = '''
import torch
from torch import nn

class AliasMethod(object):
    def __init__(self, probs):
        self.prob, self.alias = probs, probs.long()

class NCEAverage(nn.Module):
    """What a training script keeps beside its network."""
    def __init__(self, rows, dimension):
        super().__init__()
        self.nLem = rows
        self.multinomial = AliasMethod(torch.ones(rows))
        self.register_buffer("params", torch.tensor([4096, 0.07, -1, 0.5]))
        self.register_buffer("memory", torch.rand(rows, dimension))
        self.scale = nn.Parameter(torch.ones(2))
        self.inner = nn.Linear(3, 2)

'''


def tiny() -> nn.Module:
    """Convolution, batch norm and classifier: 9 tensors."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))


def state_of(model: nn.Module, prefix: str = "") -> OrderedDict[str, Tensor]:
    return OrderedDict((prefix + key, value.clone()) for key, value in model.state_dict().items())


def assert_same(model: nn.Module, state: dict[str, Tensor]) -> None:
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


PURE: Any = vars(pickle)["_Pickler"]  # written in Python, so that its methods can be replaced


class Python2Pickler(PURE):  # type: ignore[misc]
    """Protocol 2 with every string as bytes, as Python 2's pickle wrote its str.

    Tensors are built by the function that PyTorch 0.3 had for it.
    """

    dispatch = dict(PURE.dispatch)

    def save_text(self, text: str) -> None:
        data = text.encode("latin1")
        self.write(b"T" + struct.pack("<i", len(data)) + data)
        self.memoize(text)

    dispatch[str] = save_text

    def reducer_override(self, value: Any) -> Any:
        if type(value) is not Tensor:
            return NotImplemented
        function, args = value.__reduce_ex__(2)  # type: ignore[no-untyped-call]
        assert function is torch._utils._rebuild_tensor_v2
        return torch._utils._rebuild_tensor, args[:4]


def python2_dump(value: Any, file: Any, protocol: int) -> None:
    Python2Pickler(file, protocol).dump(value)


PYTHON2 = SimpleNamespace(__name__="python2", Pickler=Python2Pickler, dump=python2_dump)
WAYS: dict[str, dict[str, Any]] = {
    "zip": {},
    "zip, protocol 4": {"pickle_protocol": 4},
    "legacy": {"_use_new_zipfile_serialization": False},
    "Python 2": {"_use_new_zipfile_serialization": False, "pickle_module": PYTHON2},
}


@pytest.fixture
def nce(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A memory bank of 7 rows of 5 numbers, of a class that can be imported for now."""
    package = tmp_path / "scripts" / "gone_lib"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "NCEAverage.py").write_text(LIB)
    monkeypatch.syspath_prepend(tmp_path / "scripts")
    yield importlib.import_module("gone_lib.NCEAverage").NCEAverage(7, 5)
    forget()


def forget() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "gone_lib"]:
        del sys.modules[name]
    sys.path[:] = [place for place in sys.path if not place.endswith("scripts")]


# What the original repositories save


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source")
def test_npids_file_gives_weights_and_memory_bank(way: str, nce: Any, tmp_path: Path) -> None:
    source, path = tiny(), tmp_path / "lemniscate.pth.tar"
    content = {
        "epoch": 200,
        "arch": "resnet18",
        "state_dict": state_of(source, "module."),
        "lemniscate": nce,
        "best_prec1": torch.tensor(41.0),
        "optimizer": {"state": {0: {"momentum": torch.ones(3)}}, "note": "\xe9t\xe9"},
    }
    torch.save(content, path, **WAYS[way])
    forget()
    with pytest.raises(ImportError):
        importlib.import_module("gone_lib.NCEAverage")
    model = tiny()
    found = models.load_checkpoint(model, path)
    assert_same(model, source.state_dict())
    assert found.path == str(path) and set(found.loaded) == set(model.state_dict())
    assert set(found.extras) == set(content) - {"state_dict"}
    assert found.memory_bank is not None and torch.equal(found.memory_bank, nce.memory)
    assert found.extras["epoch"] == 200 and float(found.extras["best_prec1"]) == 41
    assert found.extras["optimizer"]["note"] == "\xe9t\xe9"
    bank = found.extras["lemniscate"]
    assert isinstance(bank, models.Inert) and bank.name == "gone_lib.NCEAverage.NCEAverage"
    names = ["scale", "params", "memory", "inner.weight", "inner.bias"]
    assert [name for name, _ in bank.tensors()] == names
    assert not any(tensor.requires_grad for _, tensor in bank.tensors())
    assert torch.equal(bank.state["multinomial"].state["prob"], torch.ones(7))
    assert "gone_lib" not in sys.modules


def test_the_emulated_file_looks_like_python_2s(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save(state_of(tiny()), path, **WAYS["Python 2"])
    written = path.read_bytes()
    assert b"T\x08\x00\x00\x000.weight" in written and b"X\x08\x00\x00\x000.weight" not in written
    assert b"_rebuild_tensor\n" in written and b"_rebuild_tensor_v2" not in written


@pytest.mark.parametrize("way", WAYS)
def test_plain_files_load_from_every_format(way: str, tmp_path: Path) -> None:
    source, model, path = tiny(), tiny(), tmp_path / "encoder.pkl"
    state = state_of(source)
    del state["1.num_batches_tracked"]
    torch.save(state, path, **WAYS[way])
    assert models.load_checkpoint(model, path).extras == {}
    assert_same(model, source.state_dict())


def test_a_learners_encoder_loads_and_its_head_is_an_extra(tmp_path: Path) -> None:
    heads = {
        "conv4net": {"temp": torch.tensor(10.0)},
        "conv64f": {"classifier.linear.weight": torch.ones(64, 1600)},
    }
    for name, head in heads.items():
        source, model, path = models.build(name), models.build(name), tmp_path / f"{name}.pth"
        wrapped = {"model": "meta-baseline", "training": {"epoch": 4}}
        torch.save({**wrapped, "model_sd": {**head, **state_of(source, "encoder.")}}, path)
        found = models.load_checkpoint(model, path)
        assert_same(model, source.state_dict())
        assert found.extras.keys() == {*wrapped, *head} and found.memory_bank is None
        torch.save(state_of(source), path)  # conv4net's own keys begin with encoder., too
        models.load_checkpoint(model, path)


def test_an_encoder_of_an_unknown_learner_is_another_network(tmp_path: Path) -> None:
    path = tmp_path / "learner.pth"
    state = state_of(models.build("conv64f"), "encoder.") | {"projector.weight": torch.ones(2)}
    torch.save(state, path)
    with pytest.raises(ModelError, match=r"(?s)another network.*unexpected: encoder.layer1.0"):
        models.load_checkpoint(models.build("conv64f"), path)


def test_containers_of_other_classes_keep_what_is_in_them(nce: Any, tmp_path: Path) -> None:
    path = tmp_path / "more.pth"
    counts, shape = Counter("aab"), torch.Size([2, 3])
    more = {"counts": counts, "shape": shape, "bytes": b"\xff", "set": {1, 2}, "bank": nce}
    more |= {"dtype": torch.float16, "complex": 1j, "list": (state_of(tiny()), [None, True])}
    torch.save({"state_dict": state_of(tiny()), **more}, path)
    extras = models.load_checkpoint(tiny(), path).extras
    assert extras["counts"].name == "collections.Counter" and extras["counts"].args == (
        dict(counts),
    )
    assert extras["shape"] == (2, 3) and extras["bytes"] == b"\xff" and extras["set"] == {1, 2}
    assert extras["dtype"] == torch.float16 and extras["complex"] == 1j
    assert type(extras["list"][0]) is dict and extras["list"][1] == [None, True]


# Files that try to run code


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


# Errors


@pytest.mark.parametrize("way", WAYS)
def test_cut_files_are_one_clear_error(way: str, nce: Any, tmp_path: Path) -> None:
    path = tmp_path / "cut.pth"
    torch.save({"state_dict": state_of(tiny()), "lemniscate": nce}, path, **WAYS[way])
    whole = path.read_bytes()
    for part in (0, 1, 8, len(whole) // 3, len(whole) // 2, len(whole) - 40):
        path.write_bytes(whole[:part])
        with pytest.raises(ModelError, match="not a complete checkpoint") as caught:
            models.load_checkpoint(tiny(), path)
        assert "\n" not in str(caught.value)


def test_a_pickled_network_is_refused_by_name(tmp_path: Path) -> None:
    for content in (tiny(), {"model": tiny(), "epoch": 3}):
        path = tmp_path / "whole.pth"
        torch.save(content, path)
        with pytest.raises(ModelError, match=r"\(torch.nn.modules.container.Sequential\)"):
            models.load_checkpoint(tiny(), path)


@pytest.mark.parametrize("loaded", ["resnet18", "resnet18_npid", "conv4net"])
def test_another_networks_file_leaves_the_model_alone(loaded: str, tmp_path: Path) -> None:
    path, model = tmp_path / "other.pth", models.build("conv64f")
    before = state_of(model)
    torch.save({"state_dict": state_of(models.build(loaded), "module.")}, path)
    with pytest.raises(ModelError, match=r"(?s)another network, not of Conv64F.*missing.*unexp"):
        models.load_checkpoint(model, path)
    assert_same(model, before)


def test_misshaped_and_odd_tensors_leave_the_model_alone(tmp_path: Path) -> None:
    path, model = tmp_path / "odd.pth", tiny()
    before = state_of(model)
    odd = {
        r"of another shape: 3.weight is \[3, 16\]": {"3.weight": torch.ones(3, 16)},
        "plain numbers: 3.weight is sparse_coo": {"3.weight": torch.ones(2, 16).to_sparse()},
        "plain numbers: 3.bias is complex": {"3.bias": torch.ones(2, dtype=torch.complex64)},
        "plain numbers: 3.bias is without": {"3.bias": torch.ones(2, device="meta")},
    }
    for words, change in odd.items():
        torch.save({key: value + 1 for key, value in before.items()} | change, path)
        with pytest.raises(ModelError, match=words):
            models.load_checkpoint(model, path)
        assert_same(model, before)


def test_the_limits_of_the_list_of_differences() -> None:
    assert checkpoint._first(list("abcd")) == "a, b, c, ..."


@pytest.mark.parametrize(
    ("prefix", "beside", "named"),
    [
        ("model.", {"loss.weight": torch.ones(2)}, {"loss.weight"}),  # Lightning's modules
        ("net.", {}, set()),
        ("_orig_mod.module.", {}, set()),
        ("model._orig_mod.", {}, set()),
        ("module.", {"n_averaged": torch.tensor(3)}, {"n_averaged"}),  # AveragedModel
    ],
)
def test_what_wraps_a_network_is_taken_off(
    prefix: str, beside: dict[str, Tensor], named: set[str], tmp_path: Path
) -> None:
    source, model, path = tiny(), tiny(), tmp_path / "wrapped.ckpt"
    torch.save({"state_dict": {**state_of(source, prefix), **beside}, "epoch": 3}, path)
    found = models.load_checkpoint(model, path)
    assert_same(model, source.state_dict())
    assert set(found.extras) == named | {"epoch"}


def test_two_networks_in_a_file_are_not_chosen_from(tmp_path: Path) -> None:
    path = tmp_path / "two.ckpt"
    torch.save({**state_of(tiny(), "model."), **state_of(tiny(), "net.")}, path)
    with pytest.raises(ModelError, match=r"2 networks that fit, under net\., model\."):
        models.load_checkpoint(tiny(), path)
    torch.save({**state_of(tiny(), "module."), "other.weight": torch.ones(1)}, path)
    with pytest.raises(ModelError, match="another network"):
        models.load_checkpoint(tiny(), path)


def test_safetensors(tmp_path: Path) -> None:
    files = pytest.importorskip("safetensors.torch")
    source, model, path = tiny(), tiny(), tmp_path / "w.safetensors"
    files.save_file(state_of(source, "model."), path)
    models.load_checkpoint(model, path)
    assert_same(model, source.state_dict())
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ModelError, match="damaged, or no file of safetensors"):
        models.load_checkpoint(model, path)
    with pytest.raises(ModelError, match="no such file; check the path"):
        models.load_checkpoint(model, tmp_path / "none.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(ModelError, match=r"folder.safetensors: cannot be read \("):
        models.load_checkpoint(model, tmp_path / "folder.safetensors")
