"""Checkpoint files as the original repositories save them.

Objects of those repositories' classes are made here from modules that are gone when loading.
"""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_files import WAYS, assert_same, state_of, tiny
from torch import Tensor

from naflow_fx import models
from naflow_fx.errors import ModelError
from naflow_fx.models import checkpoint

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
