"""Photos: what is read from files, what the model sees of it, and what a bad file says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from naflow_fx import models
from naflow_fx.dataset.sources import ENDINGS
from naflow_fx.errors import PhotoError, TargetError
from naflow_fx.models.preprocess import (
    FORMATS,
    Preprocessing,
    class_index,
    class_names,
    open_photo,
    to_rgb,
)

EXAMPLES = Path(__file__).parent.parent / "examples"
COFFEE, CHELSEA = EXAMPLES / "coffee.png", EXAMPLES / "chelsea.png"


def arrow() -> Image.Image:
    """A picture 20 x 10 with a red left end: its orientation shows."""
    picture = Image.new("RGB", (20, 10), "blue")
    picture.paste((255, 0, 0), (0, 0, 6, 10))
    return picture


# What the model sees


@pytest.mark.parametrize("path", [COFFEE, CHELSEA])
@pytest.mark.parametrize(("resize", "crop"), [(256, 224), (232, 224), (342, 299), (64, 64)])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_tensor_is_torchvisions(path: Path, resize: int, crop: int, interpolation: str) -> None:
    photo = open_photo(path)
    theirs = ImageClassification(
        crop_size=crop, resize_size=resize, interpolation=InterpolationMode(interpolation)
    )
    ours = Preprocessing(resize, crop, interpolation=interpolation)  # type: ignore[arg-type]
    assert ours(photo).dtype == torch.float32 and ours(photo).shape == (3, crop, crop)
    torch.testing.assert_close(ours(photo), theirs(photo), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet50", "efficientnet_v2_l"])
def test_denormalise_gives_the_picture_back(name: str) -> None:
    use, photo = models.card(name).preprocessing, open_photo(CHELSEA)
    picture = np.asarray(use.picture(photo))
    back = use.denormalise(use(photo))
    assert back.dtype == np.uint8 and back.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(back, picture)
    np.testing.assert_array_equal(use.denormalise(use(photo)[None]), picture)


def test_scale_is_of_pixels_in_0_to_255() -> None:
    use = Preprocessing(8, 8, mean=(127.0,) * 3, std=(128.0,) * 3, scale=1.0)
    x = use(Image.new("RGB", (8, 8), (255, 127, 0)))
    assert x[:, 0, 0].tolist() == [1.0, 0.0, -127 / 128]


def test_resize_to_height_and_width_stretches() -> None:
    photo = Image.new("RGB", (40, 20))
    photo.paste((255, 255, 255), (0, 0, 20, 20))
    seen = np.asarray(Preprocessing(resize=(8, 16), crop=8, interpolation="nearest").picture(photo))
    assert seen.shape == (8, 8, 3)
    assert seen[:, :4].min() == 255 and seen[:, 4:].max() == 0


def test_a_small_photo_is_enlarged() -> None:
    assert Preprocessing()(Image.new("RGB", (3, 5))).shape == (3, 224, 224)


def test_a_strip_is_refused() -> None:
    with pytest.raises(PhotoError, match="strip of 9000 x 1 pixels"):
        Preprocessing()(Image.new("RGB", (9000, 1)))


def test_wrong_arguments_say_what_was_wanted() -> None:
    with pytest.raises(PhotoError, match=r"crop=224\): wanted 1 to 200 pixels"):
        Preprocessing(resize=200, crop=224)
    with pytest.raises(PhotoError, match=r"wanted one image \[3, H, W\], got \[2, 3, 8, 8\]"):
        Preprocessing().denormalise(torch.zeros(2, 3, 8, 8))


# Files


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, tmp_path: Path) -> None:
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = arrow() if undo is None else arrow().transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "photo.png", exif=exif)
    np.testing.assert_array_equal(np.asarray(open_photo(tmp_path / "photo.png")), arrow())


UNREADABLE = int(PIL.__version__.split(".")[0]) < 13
YCBCR = pytest.mark.skipif(UNREADABLE, reason="Pillow reads these, uncompressed, from 13 on")


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", pytest.param("YCbCr", marks=YCBCR)])
def test_modes_become_rgb(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.tif"
    Image.new("RGB", (4, 4), "white").convert(mode).save(path)
    photo = open_photo(path)
    assert photo.mode == "RGB" and np.asarray(photo).min() >= 254


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_are_white(mode: str, tmp_path: Path) -> None:
    hidden = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    hidden.paste((0, 0, 0, 255), (0, 0, 2, 4))
    hidden.convert(mode).save(tmp_path / "photo.png")
    photo = np.asarray(open_photo(tmp_path / "photo.png"))
    assert photo[:, :2].max() == 0 and photo[:, 2:].min() == 255


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (np.array([[0, 32768, 65535]], dtype=np.uint16), [0, 128, 255]),
        (np.array([[0, 257, 514]], dtype=np.uint16), [0, 1, 2]),
        (np.array([[0, 32768, 65535]], dtype=np.int32), [0, 128, 255]),
        (np.array([[0, 128, 255]], dtype=np.int32), [0, 128, 255]),
        (np.array([[0, 0.5, 1]], dtype=np.float32), [0, 128, 255]),
        (np.array([[-3, 128, np.nan]], dtype=np.float32), [0, 128, 0]),
    ],
)
def test_wide_grey_is_scaled_not_clipped(values: np.ndarray, wanted: list[int]) -> None:
    picture = to_rgb(Image.fromarray(values))
    assert picture.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(picture)[0], np.array([wanted] * 3).T)


def test_16_bit_png_is_scaled(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 32768, np.uint16)).save(tmp_path / "photo.png")
    assert np.unique(np.asarray(open_photo(tmp_path / "photo.png"))).tolist() == [128]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".gif", ".tif"])
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.9])
def test_a_truncated_file_is_a_photo_error(suffix: str, kept: float, tmp_path: Path) -> None:
    path = tmp_path / f"photo{suffix}"
    open_photo(CHELSEA).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(PhotoError) as caught:
        open_photo(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_damaged_bytes_never_raise_anything_else(tmp_path: Path) -> None:
    path, random = tmp_path / "photo.png", np.random.default_rng(0)
    arrow().save(path)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    refused = 0
    for _ in range(100):
        damaged = whole.copy()
        damaged[random.integers(len(whole), size=3)] = random.integers(256, size=3)
        path.write_bytes(damaged.tobytes())
        try:
            open_photo(path)
        except PhotoError:
            refused += 1
    assert refused > 50


def test_files_that_are_no_photo(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("espresso")
    (tmp_path / "empty.png").touch()
    for name, words in {
        "missing.png": "no such file",
        "notes.txt": "not a picture",
        "empty.png": "not a picture",
        ".": "cannot be read",
    }.items():
        with pytest.raises(PhotoError, match=words):
            open_photo(tmp_path / name)


def test_no_photo_is_told_as_that_by_a_replaced_reader_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replaced(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'pi_heif'")  # as ultralytics' does

    monkeypatch.setattr(Image, "open", replaced)
    (tmp_path / "notes.txt").write_text("espresso")
    with pytest.raises(PhotoError, match="not a picture"):
        open_photo(tmp_path / "notes.txt")


@pytest.mark.parametrize("kind", ["EPS", "TGA", "PCX", "ICO", "PDF", "SGI"])
def test_only_the_promised_formats_are_read(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An EPS would start Ghostscript, whatever its name."""
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: 1 / 0)
    arrow().save(tmp_path / "holiday.jpg", kind)
    with pytest.raises(PhotoError, match=r"holiday.jpg: not a picture; give a file of JPEG, PNG"):
        open_photo(tmp_path / "holiday.jpg")


@pytest.mark.parametrize("kind", [*FORMATS, "MPO"])
def test_the_promised_formats_are_read(kind: str, tmp_path: Path) -> None:
    arrow().save(tmp_path / "photo.eps", kind)
    assert open_photo(tmp_path / "photo.eps").size == (20, 10)


def test_photos_that_are_looked_for_are_of_those_formats() -> None:
    Image.init()
    assert {Image.EXTENSION[ending] for ending in ENDINGS} == set(FORMATS)


def test_a_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    arrow().save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 99)  # Pillow refuses twice as many
    with pytest.raises(PhotoError, match="too many pixels"):
        open_photo(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150)  # and warns from here: still a photo
    assert open_photo(path).size == (20, 10)


# Class names


def test_every_class_is_found_by_name_and_number() -> None:
    assert len(class_names()) == 1000
    for number, name in enumerate(class_names()):
        assert class_index(str(number), class_names()) == number
        assert class_index(name, class_names()) == number


def test_names_are_forgiving_of_case_and_underscores() -> None:
    words = ("Great_White_Shark", " great white shark ", "cardigan", "Cardigan")
    assert [class_index(word, class_names()) for word in words] == [2, 2, 474, 264]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("expresso", r"no class 'expresso' of ImageNet; near: espresso \(967\)"),
        ("cat", r"tiger cat \(282\)"),
        ("qqqqqq", r"there are: tench \(0\), "),
        ("", r"there are: tench \(0\), "),
        ("+-3", "no class .* of ImageNet"),
        ("1000", "there are 0 to 999"),
        ("-1", "there are 0 to 999"),
    ],
)
def test_no_such_class(wanted: str, words: str) -> None:
    with pytest.raises(TargetError, match=words):
        class_index(wanted, class_names())
