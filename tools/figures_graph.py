"""docs/inverse-graph.png: the inverse graph of one residual block, after a run.

    python tools/figures_graph.py

The block is one of the bundled model's, run on the bundled photo; needs Graphviz.
"""

from __future__ import annotations

import sys
from pathlib import Path

from naflow_fx.cli import main as command

ROOT = Path(__file__).resolve().parents[1]
BLOCK, PHOTO = "blocks.2", ROOT / "examples" / "coffee.png"


def make(folder: Path = ROOT / "docs") -> Path:
    """Writes the file."""
    picture = folder / "inverse-graph.png"
    if command(["inspect", "--only", BLOCK, "--photo", str(PHOTO), "--out", str(picture)]):
        sys.exit("naflow-fx inspect: failed")
    return picture


if __name__ == "__main__":
    print(make().relative_to(ROOT))
