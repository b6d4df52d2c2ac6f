"""docs/inverse-graph.svg and .png: the inverse graph of one residual block, after a run.

    python tools/figures_graph.py

The block is one of the bundled model's, run on the bundled photo; needs chromium for the PNG.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree

from naflow_fx.cli import main as command

ROOT = Path(__file__).resolve().parents[1]
BLOCK, PHOTO = "blocks.2", ROOT / "examples" / "coffee.png"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def make(folder: Path = ROOT / "docs") -> list[Path]:
    """Writes both files."""
    picture = folder / "inverse-graph.svg"
    options = ["--format", "svg", "--only", BLOCK, "--photo", str(PHOTO), "--out", str(picture)]
    if command(["inspect", *options]):
        sys.exit("naflow-fx inspect: failed")
    return [picture, as_png(picture, folder / "inverse-graph.png")]


def as_png(picture: Path, out: Path) -> Path:
    """An SVG as chromium shows it on a light page, at twice its size."""
    from playwright.sync_api import sync_playwright

    found = [where for name in BROWSERS if (where := shutil.which(name))]
    if not found:
        sys.exit("no chromium: apt-get install chromium")
    root = ElementTree.parse(picture).getroot()
    size = {side: int(root.get(side, "0")) for side in ("width", "height")}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found[0], args=["--no-sandbox"])
        page = browser.new_page(viewport=size, device_scale_factor=2)  # type: ignore[arg-type]
        page.goto(picture.as_uri())
        page.screenshot(path=out)
        browser.close()
    return out


if __name__ == "__main__":
    for path in make():
        print(path.relative_to(ROOT))
