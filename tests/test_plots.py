"""Figures and animations: that they show the layers asked for, and what is said when they can't."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.nn.functional as F
from PIL import Image
from small_flow import explained

from naflow_fx.errors import FlowError
from naflow_fx.selection import evenly
from naflow_fx.view.figures import FlowFigure
from naflow_fx.view.films import Look, draw


def titles(figure: FlowFigure) -> list[str]:
    return [axes.get_title().replace("\n", " ") for axes in figure.axes if axes.images]


def test_a_grid_has_the_photo_and_every_layer(tmp_path: Path) -> None:
    _, flow, images = explained()
    figure = flow.plot(images, title="All of it")
    assert titles(figure)[0] == "photo"
    assert [text.split(" ")[0] for text in titles(figure)[1:]] == list(flow.maps)
    figure.savefig(tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.size[0] > 500
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_a_grid_draws_the_map() -> None:
    _, flow, _ = explained()
    name = "layer1.1.relu_1"
    figure = flow.plot(layers=[name], colormap="gray")
    (axes,) = [one for one in figure.axes if one.images]
    drawn = np.asarray(axes.images[0].get_array())[..., 0]
    wanted = flow.normalised()[name]
    wanted = F.interpolate(wanted[None], size=(16, 20), mode="bicubic", antialias=True)[0, 0]
    np.testing.assert_allclose(drawn, 255 * wanted.clamp(0, 1).numpy(), atol=1)


def test_a_strip_has_a_row_an_image() -> None:
    _, flow, images = explained(count=2)
    figure = flow.plot(images, "strip")
    assert len(titles(figure)) == 2 * 9
    assert titles(figure)[:9] == titles(figure)[9:]
    assert len(titles(flow.plot(kind="strip", layers=["layer1.0.*"]))) == 2 * 6


def test_curves_along_depth() -> None:
    _, flow, _ = explained(count=2, keep=("used",))
    figure = flow.plot(kind="depth")
    heads = [axes.get_title("left") for axes in figure.axes]
    assert heads == [
        "spread: entropy of the map",
        "scatter: share outside of the largest part",
        "agreement with the last map",
        "residual of the inverse",
        "abandoned neurons",
    ]
    drawn = figure.axes[3].lines[1].get_ydata()
    wanted = [float(flow.residual[name][1]) for name in flow.maps]
    np.testing.assert_allclose(np.asarray(drawn), wanted)
    without = explained()[1].plot(kind="depth")
    assert len(without.axes) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "pie"}, "wanted one of 'grid', 'strip', 'depth'"),
        ({"kind": "grid"}, "shows one image, not 2"),
        ({"kind": "strip", "layers": ["layer9.*"]}, "no call site is named layer9"),
    ],
)
def test_what_cannot_be_plotted(arguments: dict[str, Any], message: str) -> None:
    _, flow, _ = explained(count=2)
    with pytest.raises(FlowError, match=message):
        flow.plot(**arguments)


def test_evenly_keeps_both_ends() -> None:
    names = [str(i) for i in range(100)]
    assert evenly(names, 3) == ["0", "50", "99"]
    assert evenly(names[:2], 3) == ["0", "1"]


def test_a_gif_has_a_frame_a_layer(tmp_path: Path) -> None:
    _, flow, images = explained(count=2)
    path = flow.save_gif(tmp_path / "new" / "flow.gif", images, size=64, rate=10)
    with Image.open(path) as film:
        assert getattr(film, "n_frames", 1) == len(flow.maps)
        assert film.info["duration"] == 100
        assert film.size == (2 * 80 + 8, 64 + 40)


def test_frames_show_the_layers_in_order() -> None:
    _, flow, images = explained()
    look = Look(layers=["layer1.1.*"], size=64, alpha=1.0, colormap="gray")
    frames = list(draw(flow, images, look))
    names = [name for name in flow.maps if name.startswith("layer1.1.")]
    assert len(frames) == len(names)
    for name, frame in zip(names, frames, strict=True):
        peak = int(flow.maps[name][0].flatten().argmax())
        y, x = divmod(peak, flow.maps[name].shape[-1])
        cell = (64 / flow.maps[name].shape[1], 80 / flow.maps[name].shape[2])
        row, column = int((y + 0.5) * cell[0]), int((x + 0.5) * cell[1])
        assert frame[row, column, 0] >= frame[:64, :, 0].max() - 25.0


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the program ffmpeg")
def test_a_film(tmp_path: Path) -> None:
    _, flow, images = explained()
    path = flow.save_mp4(tmp_path / "flow.mp4", images, size=65, rate=8)
    probe = [
        "ffprobe", "-v", "error", "-count_frames", "-select_streams", "v", "-show_entries",
        "stream=nb_read_frames,width,height", "-of", "csv=p=0", str(path),
    ]  # fmt: skip
    found = subprocess.run(probe, capture_output=True, text=True, check=True).stdout.strip()
    assert found == f"80,104,{len(flow.maps) + 3}"
    assert list(tmp_path.iterdir()) == [path]


def test_a_film_without_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    _, flow, images = explained()
    with pytest.raises(FlowError, match="needs the program ffmpeg; install it, or use save_gif"):
        flow.save_mp4(tmp_path / "flow.mp4", images)


def test_looks_that_cannot_be() -> None:
    with pytest.raises(FlowError, match="rate"):
        Look(rate=0)
    with pytest.raises(FlowError, match="size"):
        Look(size=8)
