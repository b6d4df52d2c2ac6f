"""Every picture of the README and of docs/ (but docs/figures: `make figures`), made anew.

    python tools/docs_figures.py [flow] [curves] [page] [graph] [reconstruction] [decomposition]
        [onnx]

flow: docs/coffee.png. curves: docs/depth.png. page: docs/screenshots/, of a report in chromium.
graph, reconstruction, decomposition, onnx: by tools/figures_graph.py, figures_reconstruction.py,
figures_decompose.py and figures_onnx.py. Without a name: all of them; minutes.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from naflow_fx.cli import main as command

ROOT = Path(__file__).resolve().parents[1]
DOCS, SCREENS = ROOT / "docs", ROOT / "docs" / "screenshots"
COFFEE, CAT = (str(ROOT / "examples" / f"{name}.png") for name in ("coffee", "chelsea"))
LAYERS = ["stem_act", "blocks.[02468].project_bn", "blocks.1[02].project_bn",
          "blocks.15.project_bn", "head_act"]  # fmt: skip
METHODS = ["naflow", "focused", "layercam"]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDE = {"viewport": {"width": 1440, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True,
         "has_touch": True}  # fmt: skip


def flow() -> None:
    """docs/coffee.png: the README's sheet of the bundled photo, as `make demo` makes it."""
    with tempfile.TemporaryDirectory() as folder:
        run("explain", COFFEE, "--layers", *LAYERS, "--methods", *METHODS, "--out", folder)
        shutil.copy(Path(folder) / "coffee" / "rows.png", DOCS / "coffee.png")


def curves() -> None:
    """docs/depth.png: what is known of maps along depth, for both photos."""
    import torch

    import naflow_fx as nf
    from naflow_fx.models.preprocess import open_photo

    prepare = nf.models.card("efficientnet_lite0").preprocessing
    images = torch.stack([prepare(open_photo(Path(photo))) for photo in (COFFEE, CAT)])
    model = nf.models.build("efficientnet_lite0", pretrained=True)
    made = nf.compile(model, images[:1], keep=("used",))(images)
    made.plot(kind="depth").savefig(DOCS / "depth.png", dpi=110)


def page() -> None:
    """docs/screenshots: a report wide, dark, with its graph, on a phone; two photos."""
    SCREENS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        one, two = Path(folder) / "one.html", Path(folder) / "two.html"
        run("report", COFFEE, "--out", str(one))
        run("report", COFFEE, CAT, "--small", "--out", str(two))
        with opened(one, **WIDE) as shown:
            explored(shown)
            take(shown, "report")
            take(shown, "curves", ".curves")
            shown.keyboard.press("i")
            shown.wait_for_timeout(300)
            take(shown, "inverse-graph", ".graph")
        with opened(one, **WIDE, color_scheme="dark") as shown:
            explored(shown)
            take(shown, "report-dark")
        with opened(two, **WIDE) as shown:
            take(shown, "two-photos")
        for scheme, name in (("light", "phone"), ("dark", "phone-dark")):
            with opened(one, **PHONE, color_scheme=scheme) as shown:
                take(shown, name)
                if name == "phone":
                    shown.get_by_role("button", name="Its inverse in the graph").tap()
                    shown.wait_for_timeout(300)
                    take(shown, "phone-graph")


def explored(shown: Any) -> None:
    """A box around the cup's inside, a layer in the middle of the network."""
    area = shown.locator(".drawing").first.bounding_box()
    shown.mouse.move(area["x"] + 0.2 * area["width"], area["y"] + 0.03 * area["height"])
    shown.mouse.down()
    shown.mouse.move(area["x"] + 0.76 * area["width"], area["y"] + 0.52 * area["height"], steps=4)
    shown.mouse.up()
    shown.locator(".layer", has_text="project_bn").nth(9).click()
    shown.evaluate("scrollTo(0, 0)")


def take(shown: Any, name: str, part: str = "") -> None:
    """Keeps what the browser shows: the window, or a part of the page."""
    target = shown.locator(part) if part else shown
    with Image.open(io.BytesIO(target.screenshot())) as picture:
        picture.convert("RGB").save(SCREENS / f"{name}.webp", quality=90, method=6)


@contextmanager
def opened(path: Path, **context: Any) -> Iterator[Any]:
    """The page in chromium."""
    from playwright.sync_api import sync_playwright

    found = [where for name in BROWSERS if (where := shutil.which(name))]
    if not found:
        sys.exit("no chromium: apt-get install chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found[0], args=["--no-sandbox"])
        shown = browser.new_context(**context).new_page()
        shown.set_default_timeout(120_000)
        shown.goto(path.as_uri())
        shown.wait_for_selector("html[data-ready]")
        yield shown
        browser.close()


def graph() -> None:
    """The inverse graph of one residual block."""
    script("figures_graph.py")


def reconstruction() -> None:
    """docs/reconstruction.webp: Z at eight depths."""
    script("figures_reconstruction.py")


def decomposition() -> None:
    """docs/decomposition.png and its page."""
    script("figures_decompose.py")


def onnx() -> None:
    """docs/residual-onnx.png: a trained residual network that a package ships."""
    script("figures_onnx.py")


def script(name: str) -> None:
    """Runs another tool of this folder."""
    subprocess.run([sys.executable, str(ROOT / "tools" / name)], cwd=ROOT, check=True)


def run(*arguments: str) -> None:
    """Runs a command of naflow-fx; leaves where it fails."""
    if command(arguments):
        sys.exit(f"naflow-fx {' '.join(arguments)}: failed")


PARTS = {"flow": flow, "curves": curves, "page": page, "graph": graph,
         "reconstruction": reconstruction, "decomposition": decomposition,
         "onnx": onnx}  # fmt: skip


def main() -> None:
    """Makes the parts that were named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    for name in parser.parse_args().parts or PARTS:
        PARTS[name]()


if __name__ == "__main__":
    main()
