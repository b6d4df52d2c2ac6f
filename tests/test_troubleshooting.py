"""docs/troubleshooting.md has a heading for each message that a person can meet, and no other.

A message is what an error of `naflow_fx.errors` (or a child of one), a `NaflowWarning`, or the
command line's own complaint is made of in the source; ValueError, TypeError and the like, which
tell of a wrong internal argument, are none.  A heading is the first sentence of a message, with
`…` for what varies: the rest of it is the remedy.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import naflow_fx

PACKAGE = Path(naflow_fx.__file__).parent
PAGE = PACKAGE.parent / "docs" / "troubleshooting.md"
VARIES = "…"
LETTERS = 9  # a heading has as many of its own, or goes on to the next sentence
KIND = "type[NaflowError]"
SPEAKERS = ("warn", "_complain")
CODE = r"`([^`]+)`"
END = re.compile(r"; |\. +(?=[A-Z…])|\.?\n|\.$")


def sources() -> list[Path]:
    """The package's files; passes/ and models/ are folders of it by links."""
    folders = (PACKAGE, PACKAGE / "passes", PACKAGE / "models")
    return sorted({file for folder in folders for file in folder.rglob("*.py")})


@cache
def everything() -> dict[Path, ast.Module]:
    """The files, parsed."""
    return {file: ast.parse(file.read_text("utf-8")) for file in sources()}


def texts(words: ast.expr) -> list[str]:
    """What an expression can spell, `…` where it varies; a choice of two words is both."""
    if isinstance(words, ast.Constant) and isinstance(words.value, str):
        return [words.value]
    if isinstance(words, ast.IfExp):
        both = texts(words.body) + texts(words.orelse)
        return [VARIES] if VARIES in both else both
    if isinstance(words, ast.FormattedValue):
        return texts(words.value)
    if isinstance(words, ast.JoinedStr):
        return ["".join(parts) for parts in itertools.product(*map(texts, words.values))]
    if isinstance(words, ast.BinOp) and isinstance(words.op, ast.Add):
        return [a + b for a in texts(words.left) for b in texts(words.right)]
    return [VARIES]


def heading(message: str) -> str:
    """The first sentence of a message, or as many as have some letters of their own."""
    ends = [*(end.start() for end in END.finditer(message)), len(message)]
    enough = [end for end in ends if len(re.findall("[A-Za-z]", message[:end])) >= LETTERS]
    words = " ".join(message[: enough[0] if enough else None].split())
    return re.sub(f"{VARIES}+", VARIES, words)


def kinds(trees: list[ast.Module]) -> set[str]:
    """The names of NaflowError and of all classes that descend from it."""
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    found, before = {"NaflowError"}, set[str]()
    while found != before:
        before = set(found)
        found |= {c.name for c in classes if {ast.unparse(base) for base in c.bases} & found}
    return found


def speakers(tree: ast.Module, kinds: set[str]) -> Iterator[ast.Call]:
    """The calls that make a message: of a kind of error, or of a parameter that is one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            own = {a.arg for a in (*node.args.args, *node.args.kwonlyargs)
                   if a.annotation and ast.unparse(a.annotation) == KIND}  # fmt: skip
            yield from (call for call in ast.walk(node) if isinstance(call, ast.Call)
                        and isinstance(call.func, ast.Name) and call.func.id in own)  # fmt: skip
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            yield from [node] if name in (*kinds, *SPEAKERS) else ()


def messages(trees: dict[Path, ast.Module]) -> dict[str, list[str]]:
    """Heading -> the places of its messages.  What only passes another's words on has none."""
    found: dict[str, list[str]] = {}
    names = kinds([*everything().values(), *trees.values()])
    for file, tree in trees.items():
        for call in speakers(tree, names):
            for message in texts(call.args[0]) if call.args else ():
                passes_on = not re.search("[A-Za-z]", message) and "error" in ast.unparse(call)
                if not passes_on:
                    found.setdefault(heading(message), []).append(f"{file.name}:{call.lineno}")
    return found


def headings() -> list[str]:
    """The page's, of several messages with one cause each of them."""
    lines = PAGE.read_text("utf-8").splitlines()
    return [words for line in lines if line.startswith("### ") for words in re.findall(CODE, line)]


def test_each_message_has_a_heading_and_each_heading_a_message() -> None:
    found, there = messages(everything()), headings()
    assert {words: places for words, places in found.items() if words not in there} == {}
    assert [words for words in there if words not in found] == []
    assert len(there) == len(set(there))


PLANTED = {
    """
def check(x):
    raise InputError(f"photo: got {x}; wanted " "two")
""": ["photo: got …; wanted two"],
    """
class Lost(PhotoError): pass
raise Lost("the " + "photo is lost.  Find it")
""": ["the photo is lost"],
    """
def refuse(kind: type[NaflowError], n: int):
    raise kind(f"{n} {'eye' if n == 1 else 'eyes'} too many")
""": ["… eye too many", "… eyes too many"],
    """
warnings.warn(f"{n} maps are upside down\\n  Turn them", NaflowWarning)
""": ["… maps are upside down"],
    "raise ModelError(words)": ["…"],
    "raise ModelError(f'{error}') from error": [],
    "raise ValueError('a rank must be 4')": [],
}


@pytest.mark.parametrize(("code", "wanted"), PLANTED.items())
def test_a_raise_that_is_added_lacks_its_heading(
    code: str, wanted: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "planted.py"
    file.write_text(code, "utf-8")
    found = messages({file: ast.parse(file.read_text("utf-8"))})
    assert [words for words in found if words not in headings()] == wanted


def test_each_group_and_entry_has_words_and_links_lead_somewhere() -> None:
    page = PAGE.read_text("utf-8")
    for part in re.split(r"\n##+ ", page):
        title, _, text = re.sub(r"\n\([\w-]+\)=$", "", part).partition("\n")
        assert text.strip(), title
    links = re.findall(r"\]\(#([\w-]+)\)", page)
    assert set(links) == set(re.findall(r"(?m)^\(([\w-]+)\)=$", page))
