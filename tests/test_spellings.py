"""The spellings of an operator: what a name stands for, and that one operator has one rule."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from naflow_fx.errors import RuleError
from naflow_fx.rules import TABLE
from naflow_fx.rules._spellings import spellings
from naflow_fx.rules.contract import bind, same

aten = torch.ops.aten


def forward(input: object, beta: float = 1.0) -> object:
    return input


def test_a_name_stands_for_what_torch_has() -> None:
    adapter = same(forward)
    found = spellings(adapter, "relu", in_place=True)
    assert set(found) == {torch.relu, F.relu, torch.relu_, F.relu_, "relu", "relu_",
                          aten.relu.default, aten.relu_.default}  # fmt: skip
    assert all(way("x", beta=2.0) == adapter("x", beta=2.0) for way in found.values())


def test_an_overload_is_taken_by_name_alone() -> None:
    assert set(spellings(bind, "view")) == {"view", aten.view.default}
    assert set(spellings(bind, "add.Tensor")) == {torch.add, "add", aten.add.Tensor}
    assert aten.view.dtype not in TABLE.targets


@pytest.mark.parametrize("name", ["sigmiod", "view.nothing", "add.tensor"])
def test_a_name_that_torch_lacks_is_an_error(name: str) -> None:
    with pytest.raises(RuleError, match=name):
        spellings(bind, name)


def test_the_in_place_form_has_the_same_rule() -> None:
    names = [name for name in TABLE.targets if isinstance(name, str) and name.endswith("_")
             and not name.startswith("_")]  # fmt: skip
    assert len(names) > 10
    for name in names:
        assert TABLE.targets[name][0] is TABLE.targets[name[:-1]][0], name


def test_parameters_to_ignore_come_last_by_place_or_by_name() -> None:
    adapter = same(forward, "inplace")
    wanted = {"input": "x", "beta": 2.0}
    assert adapter("x", 2.0, True) == adapter("x", 2.0, inplace=True) == adapter("x", 2.0) == wanted
    with pytest.raises(TypeError):
        adapter("x", 2.0, True, None)
    with pytest.raises(TypeError):
        adapter("x", other=1)
