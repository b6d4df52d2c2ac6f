"""The example that compares a plain ResNet with CBAM and BAM, in a short form."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from test_example_few_shot import module


@pytest.mark.slow
def test_it_tells_what_the_modules_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "changed.png"
    with torch.random.fork_rng():
        module("examples/what_changed.py").main(
            ["--epochs", "1", "--steps", "2", "--photos", "12", "--out", str(out)]
        )
    told = capsys.readouterr().out
    first, second = re.findall(r"epoch \d: (.*)", told)
    assert first != second and "CBAM" in second  # the explainers follow the weights
    assert told.count("settling depth") == 4
    assert told.count("agreement with the plain network's maps") == 3
    rows = re.findall(r"^layer\d.*\[", told, re.M)
    assert len(rows) == 4 * 3 + 3 * 3
    with Image.open(out) as figure:
        assert figure.width > 900
