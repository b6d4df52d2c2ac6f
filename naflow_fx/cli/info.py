"""Print what an exported file says of itself.

examples:
  naflow-fx info explainer.pt2
  naflow-fx info explainer.onnx --json
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from naflow_fx.cli.parser import option
from naflow_fx.view.terminal import say

if TYPE_CHECKING:
    from naflow_fx.artefacts.metadata import Metadata


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    option(parser, "file FILE", "an artefact, .pt2 or .onnx")
    option(parser, "--json", "everything, as JSON")


def info(args: argparse.Namespace) -> None:
    """Print the metadata of a file, as text or as JSON."""
    from naflow_fx.artefacts.metadata import KINDS, read

    path = Path(args.file)
    metadata = read(path)
    if args.json:
        say(json.dumps(json.loads(metadata.to_json()), indent=1))
        return
    say(f"{path}: {KINDS[metadata.kind]}, {size_text(path)}, for {metadata.device}")
    for line in _lines(metadata):
        say(line)


def size_text(path: str | os.PathLike[str]) -> str:
    """A file's size in words: "61.0 MB"."""
    return f"{os.stat(path).st_size / 1e6:.1f} MB"


def _lines(metadata: Metadata) -> Iterator[str]:
    """One line a fact, then one a call site."""
    for name, value in metadata.info.items():
        yield f"{name}: {value}"
    yield "inputs: " + ", ".join(map(str, metadata.inputs))
    yield "target: " + _pairs(metadata.target)
    yield "options: " + _pairs(metadata.options)
    told = metadata.preprocessing
    yield "preprocessing: " + ("not told" if told is None else _pairs(told))
    names = metadata.class_names
    yield "classes: " + ("not told" if names is None else f"{len(names)}, {_few(names)}")
    yield "versions: " + _pairs(metadata.versions)
    parts = dict.fromkeys(value.name.partition(".")[0] for value in metadata.outputs)
    yield "outputs: " + ", ".join(parts)
    yield f"call sites: {len(metadata.call_sites)}"
    for site in metadata.call_sites:
        value = metadata.output(f"maps.{site}")
        yield f"  {site}  {' x '.join(map(str, value.shape[1:])) if value else ''}".rstrip()


def _pairs(values: dict[str, Any]) -> str:
    """Plain data as "key value, key value", nested parts in parentheses."""
    words = (f"{k} ({_pairs(v)})" if isinstance(v, dict) else f"{k} {v}" for k, v in values.items())
    return ", ".join(words)


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
