"""docs/decomposition.png, .html and the numbers of docs/decomposition.md.

    python tools/figures_decompose.py [--out docs]

The bundled model's prediction on examples/coffee.png; seconds on one core.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import naflow_fx as nf
from naflow_fx import models
from naflow_fx.models.preprocess import open_photo
from naflow_fx.subjects.inputs import seen

ROOT = Path(__file__).resolve().parents[1]
MODEL = "efficientnet_lite0"
MARKS = ("<!-- made by tools/figures_decompose.py -->", "<!-- end -->")


def main() -> None:
    """Writes the picture and the page, and the tree and its cost into the text."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    out = parser.parse_args().out
    card = models.card(MODEL)
    photo = open_photo(ROOT / "examples" / "coffee.png")
    model = models.build(MODEL, pretrained=True)
    image = card.preprocessing(photo)
    start = time.process_time()
    found = nf.decompose(model, image, class_names=card.class_names)
    seconds = time.process_time() - start
    shown = seen(card.preprocessing, photo)
    found.save_html(out / "decomposition.html", shown)
    found.plot(shown).savefig(out / "decomposition.png", dpi=100)
    print(f"{found.cost}; {seconds:.1f} s of processor time, tracing included")
    write(out / "decomposition.md", found)


def write(path: Path, found: nf.Decomposition) -> None:
    """Puts the tree and its cost between the marks of a text that has them."""
    if not path.exists():
        return
    before, rest = path.read_text(encoding="utf-8").split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    made = f"\n```text\n{found.text(2)}\n\ncost: {found.cost}\n```\n"
    path.write_text(f"{before}{MARKS[0]}{made}{MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
