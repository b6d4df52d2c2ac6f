"""What a release is called is the same everywhere."""

from __future__ import annotations

import re
from pathlib import Path

import naflow_fx as nf

ROOT = Path(__file__).resolve().parents[1]


def test_one_version() -> None:
    texts = {name: (ROOT / name).read_text() for name in ("pyproject.toml", "CITATION.cff")}
    for name, text in texts.items():
        (found,) = re.findall(r'^version(?: = |: )"(.+)"$', text, re.M)
        assert found == nf.__version__, name
    newest = re.search(r"^## (\S+) \((.+)\)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert newest is not None and newest[1] == nf.__version__
    assert f'date-released: "{newest[2]}"' in texts["CITATION.cff"]
