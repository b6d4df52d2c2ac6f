"""How a network is named: references, arguments, names of classes, subjects as files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from own_network import (
    INPUT,
    NAMES,
    NUMBERS,
    assert_equal,
    explained,
    photo,
    work,
)

import naflow_fx as nf
from naflow_fx.errors import ModelError, NaflowError
from naflow_fx.subjects import Recipe

__all__ = ["photo", "work"]  # fixtures


def test_names_that_were_given_are_saved(work: Path) -> None:
    nf.subject("nets.py:Crack", classes=NAMES, **NUMBERS).recipe.save("named.toml")  # type: ignore
    assert nf.subject("named.toml").class_names == tuple(NAMES)


def test_one_number_is_of_all_colours(photo: str) -> None:
    subject = nf.subject("nets.py:wide", size=96, mean=0.5, std=0.25)
    assert subject.example().shape == (1, 3, 96, 96)


def test_class_names_in_their_forms(work: Path) -> None:
    numbered = {str(i): NAMES[i] for i in (4, 2, 0, 1, 3)}
    forms = {"a.json": json.dumps(NAMES), "b.txt": "\ufeff" + "\r\n".join(NAMES),
             "c.json": json.dumps(numbered)}  # fmt: skip
    for name, text in forms.items():
        (work / name).write_text(text, "utf-8")
        assert nf.subject(classes=name).class_names == tuple(NAMES)
    assert nf.subject(classes=dict(enumerate(NAMES))).class_names == tuple(NAMES)
    (work / "d.json").write_text('{"1": "one"}')
    with pytest.raises(ModelError, match=r"d.json: wanted a name for each of the classes 0 to 0"):
        nf.subject(classes="d.json")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"model": "nets.py"}, "function .none named. in it, but Crack, .*; give nets.py:Crack"),
        ({"model": "nets.py:Krack"}, "nets.py: no class or function Krack in it, but Crack, "),
        ({"model": "none.py:Net"}, "none.py: no such file"),
        ({"model": "wrong.py:Net"}, r"wrong.py \(line 2\) raises ZeroDivisionError"),
        ({"model": "no_such_package:Net"}, "No module named 'no_such_package'"),
        ({"model": "nets.py:needy"}, "missing a required argument: 'width'; give --model-args"),
        ({"model": "nets.py:number", "size": 9, "mean": 0, "std": 1}, "gave a int; wanted a torch"),
        ({"model": "crack.pt"}, "weights, without a network; give --model file.py:Name --weights"),
        ({"model": "nets.py:Crack"}, "how photos become inputs isn't known; give its size"),
        ({"model": "nets.py:Crack", "size": 96}, "mean, std is missing"),
        ({"model": "nets.py:Crack", "size": 96, "mean": (1, 1), "std": 1}, "wanted three numbers"),
        ({"model": "nets.py:Crack", "size": 9, "preprocess": "nets.py:grey"}, "or the numbers"),
        ({"weights": "none.pt"}, "neither a checkpoint file nor public weights"),
        ({"model_args": {"weights": "DEFAULT"}}, "cannot be built with {'weights': 'DEFAULT'}: "),
        ({**NUMBERS, "model": "nets.py:wide", "weights": "crack.pt"}, "checkpoint of another"),
        ({"model": "none.toml"}, "none.toml: cannot be read"),
        ({"model": "wrong.toml"}, "wrong.toml: not a subject .*sizes"),
        ({"model": "none.onnx"}, "none.onnx: no such file"),
    ],
)  # fmt: skip
def test_wrong_references_are_answered_with_what_there_is(
    given: dict[str, Any], words: str, work: Path, photo: str
) -> None:
    (work / "wrong.py").write_text("a = 1\n1 / 0\n")
    (work / "wrong.toml").write_text('model = "nets.py:Crack"\nsizes = 96\n')
    with pytest.raises(NaflowError, match=words):
        nf.subject(**given).explain(photo)


def test_arguments_and_weights_as_made(photo: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--model", "nets.py:needy", "--model-args", "width=3", *INPUT]
    first = explained(capsys, "made", photo, *given)
    again = explained(capsys, "made_again", photo, *given)
    assert first[1]["weights"] == "as made"
    assert first[1]["subject"]["model_args"] == {"width": 3}
    assert_equal(first[0], again[0], 0.0)


def test_a_maker_whose_arguments_nobody_knows_is_called() -> None:
    with pytest.raises(ModelError, match="gave a dict; wanted a torch.nn.Module"):
        nf.subject("builtins:dict", size=9, mean=0, std=1).build()


def test_a_subjects_file_holds_what_was_said(work: Path, tmp_path: Path) -> None:
    (work / "resnet18").mkdir()
    (work / "hub").mkdir()
    for recipe in (
        Recipe("resnet18", "none", {"num_classes": 5, "note": 'a "b"\n\\ \x7f', "x": [1.5, True]}),
        Recipe("timm/resnet18", classes=("a", "<b>", "\u00e9"), mean=(0.1, 0.2, 0.3), std=(1.0,)),
        Recipe("torchvision.models:resnet18", size=64, mean=(0.5,), std=(0.5,), channels=3),
    ):
        recipe.save(tmp_path / "s.toml")
        assert Recipe.read(tmp_path / "s.toml") == recipe
    Recipe("hf/./hub").save(work / "kept.toml")
    assert Recipe.read("kept.toml").model == "hf/hub"
    (tmp_path / "one.toml").write_text("mean = 0.5\nstd = 1\n")
    assert Recipe.read(tmp_path / "one.toml") == Recipe(mean=(0.5,), std=(1,))
    with pytest.raises(ModelError, match="None can't be written"):
        Recipe(model_args={"width": None}).save(tmp_path / "no.toml")


def test_several_networks_read_what_lies_beside_them(work: Path) -> None:
    """Two files of one name: each has its own code, and none of it stays on the path."""
    import sys

    before = list(sys.path)
    for folder, width in (("a", 3), ("b", 4)):
        (work / folder).mkdir()
        (work / folder / "nets.py").write_text(
            f"from torch import nn\ndef net():\n    return nn.Conv2d(1, {width}, 1)\n"
        )
    found = [nf.subject(f"{folder}/nets.py:net").build() for folder in "ab"]
    assert [net.state_dict()["weight"].shape[0] for net in found] == [3, 4]
    assert sys.path == before
