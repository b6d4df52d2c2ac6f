"""The example that explains every epoch: the maps move with the training."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from test_example_few_shot import module


def test_it_explains_every_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with torch.random.fork_rng():
        module("examples/explain_epochs.py").main(
            ["--epochs", "2", "--steps", "3", "--out", str(tmp_path / "new" / "epochs.png")]
        )
    told = re.findall(r"epoch (\d): (\d+)% right, (\d+)% on it", capsys.readouterr().out)
    assert [int(n) for n, _, _ in told] == [0, 1, 2] and len({on for _, _, on in told}) > 1
    with Image.open(tmp_path / "new" / "epochs.png") as figure:
        assert figure.width == 3 * (48 * 3 + 4)
