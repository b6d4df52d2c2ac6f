"""README and docs/: every Python block runs as it is printed, and no page is far from the start.

The blocks of a page run in order, in one namespace, as a reader would run them, in a folder with
what the pages take for granted: photos, a network of one's own, a model and images at hand. Weights
are random where those would have to be fetched, and pictures and batches are smaller.
A block that can't be run has `<!-- not run: why -->` on the line before it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from docs_world import BEFORE, SMALLER, furnish, names_of
from torch import nn

import naflow_fx as nf
from naflow_fx.cli.parser import make_parser
from naflow_fx.rules import TABLE

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^(<!-- not run: .+ -->\n)?( *)```python\n(.*?)^ *```$", re.S | re.M)
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("howto/*.md"))]
CODE = {
    str(page.relative_to(ROOT)): found
    for page in PAGES
    if (found := BLOCK.findall(page.read_text(encoding="utf-8")))
}
LONG = ("docs/index.md", "docs/similarity.md", "docs/howto/segmentation-detection.md")
LINK = re.compile(r"\]\(([^)#\s]+?\.(?:md|ipynb))(?:#[^)]*)?\)")


def blocks(page: str) -> list[str]:
    """The Python of a page that is run, without the indent of a list, smaller."""
    kept = [(indent, code) for left_out, indent, code in CODE[page] if not left_out]
    found = [re.sub(f"^{indent}", "", code, flags=re.M) for indent, code in kept]
    for long, short in SMALLER.items():
        found = [code.replace(long, short) for code in found]
    return found


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """Runs a page in a furnished folder; gives its names. What it registers is gone afterwards."""
    monkeypatch.chdir(tmp_path)
    furnish(tmp_path, ROOT)
    for name in ("rules", "targets", "modules", "forwards"):
        monkeypatch.setattr(TABLE, name, dict(getattr(TABLE, name)))
    torch.manual_seed(0)
    resnet = torchvision.models.resnet18(weights=None).eval()
    monkeypatch.setattr(torchvision.models, "resnet18", lambda weights: resnet)

    def run(page: str) -> dict[str, Any]:
        if page in BEFORE:
            BEFORE[page](monkeypatch)
        for code in blocks(page):
            for module in re.findall(r"^(?:from|import) (\w+)", code, re.M):
                pytest.importorskip(module)
        names = names_of(resnet)
        for code in blocks(page):
            exec(compile(code, page, "exec"), names)
        return names

    return run


@pytest.mark.parametrize(
    "page", [pytest.param(p, marks=pytest.mark.slow if p in LONG else ()) for p in CODE]
)
def test_the_blocks_of_a_page_run(
    page: str, run: Callable[[str], dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    names = run(page)
    if check := CHECKS.get(page):
        check(names, capsys.readouterr().out)


def in_python(names: dict[str, Any], _: str) -> None:
    assert names["flow"].maps["layer1.0.relu_1"].shape == (2, 16, 16)
    assert sorted(p.name for p in Path("out").iterdir()) == ["000", "001"]


def similarity(names: dict[str, Any], _: str) -> None:
    pair = names["pair"]
    assert pair.query.maps["head_act"].shape == (1, 7, 7) and pair.contribution.shape == (1, 1280)
    assert Path("out", "grid.png").is_file()
    assert names["found"].index.tolist() == [[1, 0]] and names["episode"].prediction == 1


def operators(names: dict[str, Any], printed: str) -> None:
    assert printed.split() == ["[]", "[]"]  # no law is broken
    model = nn.Sequential(nn.Conv2d(3, 4, 3), names["Crelu"](), nn.AdaptiveAvgPool2d(1),
                          nn.Flatten(), nn.Linear(8, 3))  # fmt: skip
    flow = nf.compile(model, torch.randn(2, 3, 8, 8), keep="bpfm")(torch.randn(2, 3, 8, 8))
    assert list(flow.maps) == ["input", "0", "1"] and flow.bpfm["0"].any()
    smooth = names["Smooth"](4)
    twin = nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)
    twin.weight.data = names["normed"](smooth.filters.detach())
    ours, theirs = maps_with(twin), maps_with(smooth)
    assert list(ours) == list(theirs)
    for site, wanted in ours.items():
        torch.testing.assert_close(theirs[site], wanted, rtol=1e-4, atol=1e-5 * float(wanted.max()))


def maps_with(layer: nn.Module) -> dict[str, torch.Tensor]:
    """The maps of a small network that has this layer in it."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), layer, nn.BatchNorm2d(4), nn.ReLU(),
                          nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))  # fmt: skip
    return dict(nf.compile(model, x)(x, 0).maps)


def untraceable(_: dict[str, Any], printed: str) -> None:
    assert "Branching can't be turned into a graph" in printed


def coming_from(names: dict[str, Any], _: str) -> None:
    assert names["ours"].any() and names["heat"].any()  # zeros would agree, too


CHECKS = {
    "README.md": in_python,
    "docs/python.md": in_python,
    "docs/similarity.md": similarity,
    "docs/operators.md": operators,
    "docs/howto/cant-trace.md": untraceable,
    "docs/howto/coming-from.md": coming_from,
}


def commands(page: Path) -> list[list[str]]:
    """The words of each command of ours in a page's shell blocks, but of outlines (`[--x X]`)."""
    found = re.findall(r"^```sh\n(.*?)^```$", page.read_text(encoding="utf-8"), re.S | re.M)
    lines = "".join(found).replace("\\\n", " ").splitlines()
    split = [shlex.split(line, comments=True) for line in lines]
    return [
        words[1:]
        for line, words in zip(lines, split, strict=True)
        if words and words[0] == "naflow-fx" and " [" not in line
    ]


@pytest.mark.parametrize("page", [str(p.relative_to(ROOT)) for p in PAGES if commands(p)])
def test_the_commands_of_a_page_have_these_options(page: str) -> None:
    for words in commands(ROOT / page):
        assert make_parser().parse_args(words).command


def test_nearly_all_blocks_run() -> None:
    left_out = [page for page, found in CODE.items() for skip, *_ in found if skip]
    assert len(left_out) <= 2, left_out


def links(page: Path) -> set[Path]:
    """The pages that a page of the site links to, by links and lists of pages, the sidebar not."""
    text = page.read_text(encoding="utf-8")
    found = {page.parent / link for link in LINK.findall(text) if "://" not in link}
    for listed in re.findall(r"^```\{toctree\}\n(.*?)^```$", text, re.S | re.M):
        for name in re.findall(r"^(?!:)(\S+)$", listed, re.M):
            found |= set(page.parent.glob(f"{name}.md")) | set(page.parent.glob(f"{name}.ipynb"))
    return {link.resolve() for link in found}


def test_no_page_is_further_than_two_links_from_the_start() -> None:
    start = DOCS / "index.md"
    near = links(start)
    reached = {start} | near | {far for page in near if page.is_file() for far in links(page)}
    pages = {*DOCS.rglob("*.md"), *DOCS.rglob("*.ipynb")}
    assert not {str(page.relative_to(DOCS)) for page in pages - reached}
    assert not {str(page) for page in reached if not page.is_file()}  # links to nothing


@pytest.mark.parametrize(
    ("wish", "page"),
    [
        ("explain my own network", "own-network.md"),
        ("know what `residual` means", "reading.md"),
        ("know why a map is zero", "howto/zero-map.md"),
        ("know what it costs", "howto/which-method.md"),
        ("add an operator", "operators.md"),
    ],
)
def test_the_start_says_where_to_go(wish: str, page: str) -> None:
    (row,) = re.findall(
        rf"^\| {re.escape(wish)} \| (.*) \|$", (DOCS / "index.md").read_text(), re.M
    )
    assert page in LINK.findall(row)[0]


def test_every_public_name_is_in_the_reference() -> None:
    text = "\n".join(page.read_text() for page in DOCS.glob("reference/*.md"))
    named = set(re.findall(r"^\.\. auto(?!summary)\w+:: naflow_fx\.(\w+)", text, re.M))
    assert set(nf.__all__) - {"__version__"} <= named


def test_the_repositorys_page_is_short_and_its_links_lead_somewhere() -> None:
    readme = ROOT / "README.md"
    assert len(readme.read_text(encoding="utf-8").splitlines()) <= 140
    assert not {str(page) for page in links(readme) if not page.is_file()}


@pytest.mark.parametrize(
    ("page", "line", "row", "column"),
    [
        ("README.md", r'`"naflow"`, the default .* \| (.+) \|', "naflow, float32", 0),
        ("README.md", r"channelwise.* \| (.+) \|", "naflow, channelwise, float32", 0),
        ("README.md", r'`"layercam"` \|.* \| (.+) \|', "layercam", 0),
        ("README.md", r"8 photos ([\d.]+) times the memory", "naflow, the default", 1),
        ("docs/howto/which-method.md", r"float32.* \| (.+) \|", "naflow, float32", 0),
        ("docs/howto/which-method.md", r"bfloat16 faster \| (.+) \|", "naflow, bfloat16", 0),
        (
            "docs/howto/which-method.md",
            r"compiled\(\)` \| (.+),",
            "resnet18, batch 1, naflow, the default",
            0,
        ),
        ("docs/howto/out-of-memory.md", r"took (\d+) MiB above", "naflow, the default", 0),
    ],
)
def test_prices_are_those_of_the_benchmarks(page: str, line: str, row: str, column: int) -> None:
    """Of the first table with such a row, whose time stands first: resnet18's, batch 1."""
    (quoted,) = re.findall(line, (ROOT / page).read_text(encoding="utf-8"))
    text = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    part = text.split("### Peak memory" if "MiB" in line or "memory" in line else "### Time, un")[1]
    found = re.findall(rf"^\| {re.escape(row)} \| (.*) \|$", part, re.M)[0].split(" | ")
    assert quoted == found[column].split()[0]
