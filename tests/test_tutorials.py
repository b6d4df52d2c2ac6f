"""The tutorials as they are stored: `make tutorials` runs them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "tutorials"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def notebook(name: str) -> dict[str, Any]:
    """A notebook as stored."""
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.ipynb").read_text())
    return found


def text(cell: dict[str, Any]) -> str:
    """What a cell says."""
    return "".join(cell["source"])


def seconds(name: str) -> int:
    """How long a tutorial says that it runs."""
    (found,) = re.findall(
        r"to read\sand\sabout\s(\d+)\sseconds\sto\srun", text(notebook(name)["cells"][0])
    )
    return int(found)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_a_run_is_stored(name: str) -> None:
    for cell in notebook(name)["cells"]:
        assert cell["id"] and not cell["metadata"]
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None


@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_tells_what_is_gained_how_long_it_takes_and_what_can_go_wrong(name: str) -> None:
    cells = notebook(name)["cells"]
    told = [text(cell) for cell in cells if cell["cell_type"] == "markdown"]
    headings = re.findall(r"^#+ (.*)$", "\n".join(told), re.M)
    assert headings[0].startswith(f"{int(name[:2])}. ") and headings[-1] == "What can go wrong"
    assert "At the end" in told[0] and seconds(name) < 60
    assert 8 <= len(cells) <= 15
    pitfalls = told[-1].partition("## What can go wrong")[2]
    assert 3 <= len(re.findall(r"^\* \*\*", pitfalls, re.M)) <= 5


def test_the_list_has_every_tutorial_in_order() -> None:
    page = (FOLDER / "index.md").read_text()
    (tree,) = re.findall(r"```\{toctree\}\n(.*?)```", page, re.S)
    assert [line for line in tree.splitlines() if line[:1].isdigit()] == NAMES
    rows = re.findall(r"^\| \[.*?\]\((.*?)\.ipynb\) \| .+\. \| (\d+) s \|$", page, re.M)
    assert rows == [(name, str(seconds(name))) for name in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_pages_that_a_tutorial_links_are_there(name: str) -> None:
    told = "\n".join(text(c) for c in notebook(name)["cells"] if c["cell_type"] == "markdown")
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", told)
    assert all((FOLDER / link).is_file() for link in links), links
