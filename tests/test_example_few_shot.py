"""The few-shot example runs to its end, in a few episodes, and the figures' captions are theirs."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
pytest.importorskip("skimage")


def module(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("name", ["conv4net", "conv64f"])
def test_it_trains_tests_and_explains(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    argv = ["--model", name, "--episodes", "2", "--test-episodes", "2", "--out", str(tmp_path)]
    module("examples/few_shot.py").main(argv)
    torch.set_num_threads(threads)
    printed = capsys.readouterr().out
    assert len(re.findall(rf"{name}: 5-way [15]-shot accuracy \d+\.\d% \+- ", printed)) == 2
    cases = {path.name for path in (tmp_path / name).iterdir()}
    assert cases == {"right", "wrong", "instead"}
    for case in cases:
        record = json.loads((tmp_path / name / case / "flow.json").read_text())
        assert record["images"] == 2 and (tmp_path / name / case / "grid.png").is_file()
        assert f"{name}, {case}: a crop of" in printed


def test_training_starts_from_the_seed_and_moves() -> None:
    example = module("examples/few_shot.py")
    torch.manual_seed(0)
    before = example.nf.models.build("conv4net")
    one, other = (example.train("conv4net", 1)[0] for _ in range(2))
    for name, values in one.state_dict().items():
        assert torch.equal(values, other.state_dict()[name]), name
    assert not torch.equal(one.encoder[0][0].weight, before.encoder[0][0].weight)
    assert not one.training


def test_every_figure_has_a_caption_and_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    figures = module("tools/figures.py")
    folder = ROOT / "docs" / "figures"
    assert {figure.number for figure in figures.CAPTIONS} == {1, *range(4, 13)}
    assert (folder / "README.md").read_text(encoding="utf-8") == figures.captions()
    files = {f"{figure.file}.png" for figure in figures.CAPTIONS}
    assert {path.name for path in folder.glob("*.png")} == files
    assert all((folder / name).stat().st_size < 1_000_000 for name in files)
