"""The options of `naflow-fx info`. No heavy import in here."""

from __future__ import annotations

from naflow_fx.cli.parsers.base import Commands, command

TEXT = "print what an exported file says of itself"
EXAMPLES = """\
examples:
  naflow-fx info explainer.pt2
  naflow-fx info explainer.onnx --json
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command(commands, "info", TEXT, EXAMPLES, "info:info", "FILE")
    parser.add_argument("file", metavar="FILE", help="an artefact, .pt2 or .onnx")
    parser.add_argument("--json", action="store_true", help="everything, as JSON")
