"""One HTML file with everything inside: styles, code, data. It asks the network for nothing.

Text goes in as JSON and reaches the page as text, never as markup; the Content-Security-Policy
allows the one script and the one style that are written here, by their hashes, and no requests.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from naflow_fx.files import write
from naflow_fx.view.html import render
from naflow_fx.view.page.record import Record, ReportEntry, make_report

POLICY = (
    "default-src 'none'; img-src data:; style-src {style}; script-src {script}; "
    "base-uri 'none'; form-action 'none'"
)


def save_report(
    path: str | Path,
    entries: Iterable[ReportEntry],
    *,
    title: str = "Attention flow",
    colormap: str = "inferno",
    alpha: float = 0.5,
) -> Path:
    """Write a page that shows flows side by side: photos, maps, curves, inverse graphs.

    Args:
        path: of the file; its folder is made.
        entries: a `ReportEntry` for each model. Photos of the same name stand in one row, so that
            models can be compared; they move through their layers together, by name where they
            share it, else by depth.
        title: heading.
        colormap: that the page starts with; as for `AttentionFlow.overlay`.
        alpha: the same.

    Raises:
        FlowError: nothing to show, or images, names and flows that don't fit.
        OSError: the file can't be written; what was there stays.
    """
    return write(Path(path), page_of(make_report(entries, title, colormap, alpha)))


def page_of(report: Record) -> str:
    """The page that shows what `make_report` gives."""
    style, script = _bundled("viewer.css"), _bundled("viewer.js")
    data = json.dumps(report, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    policy = POLICY.format(style=_hash(style), script=_hash(script))
    return render(
        "flow.html",
        policy=policy,
        title=report["title"],
        style=style,
        script=script,
        data=data.replace("<", "\\u003c"),
        licences=_bundled("THIRD_PARTY.txt").replace("<", "&lt;"),
    )


def _bundled(name: str) -> str:
    return (Path(__file__).parent / "bundle" / name).read_text("utf-8")


def _hash(text: str) -> str:
    """What a Content-Security-Policy calls the text."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
