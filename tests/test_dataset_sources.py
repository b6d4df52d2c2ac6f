"""Sources of batch runs, and photos that are hard to open."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from dataset_tiny import draw_photos, picture, run, unlike
from PIL import Image

import naflow_fx as nf
from naflow_fx.dataset.sources import LARGEST, open_source
from naflow_fx.errors import DatasetError


def files_of(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.iterdir())]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_photos(tmp_path_factory.mktemp("source") / "photos", 6)


def read_all(source: Any) -> list[bytes]:
    return [source.read(i) for i in range(len(source.ids))]


def test_a_folder_is_walked_in_order(photos: Path, tmp_path: Path) -> None:
    for name in ("b/2.PNG", "b/1.jpg", "a.png", "b-c/3.webp", ".hidden.png", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "b/again").symlink_to(tmp_path)
    source = open_source(tmp_path)
    assert (source.kind, source.labels) == ("folder", None)
    assert list(source.ids) == ["a.png", "b/1.jpg", "b/2.PNG", "b-c/3.webp"]
    assert read_all(source)[1] == b"b/1.jpg"


def test_an_image_folder_has_the_labels_of_torchvision(tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder

    for name in ("cat/1.png", "cat/deep/2.png", "dog/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture().save(tmp_path / name)
    theirs, ours = ImageFolder(str(tmp_path)), open_source(tmp_path)
    assert ours.kind == "imagefolder" and ours.labels is not None
    assert list(ours.labels) == [label for _, label in theirs.samples]
    assert sorted(open_source(theirs).ids) == sorted(ours.ids)
    assert run(tmp_path, tmp_path / "out", target="label").failed == 0
    rows = nf.open_results(tmp_path / "out").pandas()
    assert list(rows["target"]) == list(rows["label"]) == [0, 0, 1]


def test_a_list_is_read_in_its_own_order(photos: Path, tmp_path: Path) -> None:
    names = [path.name for path in sorted(photos.iterdir())]
    lines = [f"{photos}/{names[3]}\t4", f"{photos}/{names[0]}", "", f"{photos}/{names[3]}\t2"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    source = open_source(tmp_path / "list.txt")
    assert source.kind == "list" and source.labels == [4, -1, 2]
    assert read_all(source) == [files_of(photos)[i] for i in (3, 0, 3)]
    (tmp_path / "bad.txt").write_text("a.png\tcat\n")
    with pytest.raises(DatasetError, match="wanted a number after the tab"):
        open_source(tmp_path / "bad.txt")


@pytest.fixture
def tar(photos: Path, tmp_path: Path) -> Path:
    path = tmp_path / "shard.tar"
    with webdataset.TarWriter(str(path)) as writer:
        for number, data in enumerate(files_of(photos)):
            writer.write({"__key__": f"a/{number:03d}", "png": data, "cls": number, "txt": "words"})
    return path


def test_a_webdataset_tar(photos: Path, tar: Path) -> None:
    source = open_source(tar)
    assert source.kind == "tar" and source.labels == list(range(6))
    assert list(source.ids) == [f"a/{number:03d}.png" for number in range(6)]
    assert read_all(source) == files_of(photos)
    two = open_source(str(tar.parent / "sh*.tar"))
    assert read_all(two) == files_of(photos)


def test_every_source_gives_the_same_rows(photos: Path, tar: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "folder")
    run(tar, tmp_path / "tar", workers=1)
    table = pa.table(
        {"image": [{"bytes": d, "path": f"{i}"} for i, d in enumerate(files_of(photos))]}
    )
    pq.write_table(table, tmp_path / "photos.parquet", row_group_size=4)
    run(tmp_path / "photos.parquet", tmp_path / "parquet", workers=1)
    for kind in ("tar", "parquet"):
        assert set(unlike(tmp_path / "folder", tmp_path / kind)) <= {"id", "label"}


def test_parquet_columns(photos: Path, tmp_path: Path) -> None:
    data = files_of(photos)
    hugging_face = pa.table({
        "image": [{"bytes": d, "path": f"{i}.png"} for i, d in enumerate(data)],
        "label": list(range(6)),
    })  # fmt: skip
    bare = pa.table({"jpg": [*data[:5], None], "id": [f"x{i}" for i in range(6)]})
    pq.write_table(hugging_face, tmp_path / "a.parquet", row_group_size=2)
    pq.write_table(bare, tmp_path / "b.parquet")
    source = open_source(tmp_path / "a.parquet")
    assert list(source.ids) == [f"{i}.png" for i in range(6)]
    assert source.labels == list(range(6)) and read_all(source) == data
    source = open_source(tmp_path / "b.parquet")
    assert list(source.ids) == [f"x{i}" for i in range(6)] and source.labels is None
    with pytest.raises(OSError, match="no bytes in this row"):
        source.read(5)
    both = open_source(tmp_path / "[ab].parquet")  # of each file its own column
    assert [both.read(i) for i in range(11)] == [*data, *data[:5]]
    pq.write_table(pa.table({"n": [1]}), tmp_path / "c.parquet")
    with pytest.raises(DatasetError, match="no column of photos; .* got n"):
        open_source(tmp_path / "c.parquet")


def test_no_path_of_an_archive_leaves_the_output_folder(photos: Path, tmp_path: Path) -> None:
    """Members are read in place: names are data, links are not followed."""
    data = files_of(photos)[0]
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        for name in ("../../escaped.png", "/tmp/absolute-naflow.png", "ok.png"):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("passwd.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    before = set(tmp_path.rglob("*"))
    run(tmp_path / "evil.tar", tmp_path / "deep/er/out")
    new = set(tmp_path.rglob("*")) - before - {tmp_path / "deep", tmp_path / "deep/er"}
    assert all(path.is_relative_to(tmp_path / "deep/er/out") for path in new)
    assert not Path("/tmp/absolute-naflow.png").exists()
    ids = list(nf.open_results(tmp_path / "deep/er/out").pandas()["id"])
    assert ids == ["../../escaped.png", "/tmp/absolute-naflow.png", "ok.png"]


def test_what_is_no_source_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"no tar" * 200)
    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    (tmp_path / "a.tar.gz").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    for name, text in (
        ("a.tar", "not a tar archive that can be read"),
        ("a.parquet", "not a Parquet file"),
        ("a.tar.gz", "must be unpacked first"),
        ("empty", "no photo in it"),
        ("nothing", "nothing: no such folder"),
        ("nothing.tar", "nothing.tar: no such file"),
    ):
        with pytest.raises(DatasetError, match=text):
            open_source(tmp_path / name)
    with pytest.raises(DatasetError, match=r"open_source\(source=3\): wanted a path"):
        open_source(3)


def bomb(side: int) -> bytes:
    """A PNG of side x side pixels in a few kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    lines = zlib.compress(bytes(side // 8 + 1) * 64)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")
    )


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn to the right shows it upright
    return encoded(picture().rotate(90, expand=True), "JPEG", quality=100, subsampling=0, exif=exif)


def hard_photos(folder: Path) -> None:
    """Files named after what is the matter with them."""
    plain, other = picture(0), picture(1)
    wide = np.asarray(plain.convert("L")).astype(np.uint16) * 257
    animated = encoded(plain, "GIF", save_all=True, append_images=[other], duration=9)
    whole = encoded(plain, "PNG")
    files = {
        "animated.gif": animated,
        "bomb.png": bomb(20_000),
        "cmyk.jpg": encoded(plain.convert("CMYK"), "JPEG"),
        "deep.png": encoded(Image.fromarray(wide), "PNG"),
        "empty.png": b"",
        "plain.png": whole,
        "text.jpg": b"no picture at all",
        "truncated.jpg": encoded(plain, "JPEG")[:-200],
        "truncated.png": whole[:-30],
        "turned.jpg": turned(),
    }
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / "folder.png").mkdir()
    (folder / "gone.png").symlink_to(folder / "nowhere")
    with open(folder / "large.png", "wb") as file:
        file.truncate(LARGEST + 1)


def test_hard_photos_are_handled_or_listed(tmp_path: Path) -> None:
    hard_photos(tmp_path / "photos")
    run(tmp_path / "photos", tmp_path / "out", workers=1)
    found = nf.open_results(tmp_path / "out")
    rows = found.pandas().set_index("id")
    assert set(rows.index) == {"animated.gif", "cmyk.jpg", "deep.png", "plain.png", "turned.jpg"}
    assert tuple(rows.loc["turned.jpg", ["height", "width"]]) == (40, 48)
    for name in ("animated.gif", "deep.png", "turned.jpg"):  # nearly the same picture
        assert abs(rows.loc[name, "score"] - rows.loc["plain.png", "score"]) < 0.1
    lines = (tmp_path / "out/failed.jsonl").read_text().splitlines()
    reasons = {line["id"]: line["reason"] for line in map(json.loads, lines)}
    for name, text in (
        ("bomb.png", "too many pixels to open safely"),
        ("empty.png", "empty: 0 bytes"),
        ("gone.png", "cannot be read (No such file or directory)"),
        ("large.png", "more than 536870912 are not read"),
        ("text.jpg", "not a picture"),
        ("truncated.jpg", "damaged or cut short"),
        ("truncated.png", "damaged or cut short"),
    ):
        assert text in reasons.pop(name)
    assert not reasons


def test_a_run_of_bad_photos_alone_says_so(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/empty.png").write_bytes(b"")
    with pytest.raises(DatasetError, match="has a row; the first, empty.png: empty: 0 bytes;"):
        run(tmp_path / "photos", tmp_path / "out")
    assert "empty: 0 bytes" in (tmp_path / "out/failed.jsonl").read_text()


def test_names_that_are_no_text_or_more_than_names(photos: Path, tmp_path: Path) -> None:
    data = files_of(photos)[0]
    (tmp_path / "photos").mkdir()
    names = [b"caf\xe9.png", b"<img onerror=alert(1)>.png", b"a\nb.png"]
    for name in names:
        (tmp_path / "photos" / name.decode("utf-8", "surrogateescape")).write_bytes(data)
    run(tmp_path / "photos", tmp_path / "out")
    ids = set(nf.open_results(tmp_path / "out").pandas()["id"])
    assert ids == {"caf\\xe9.png", "<img onerror=alert(1)>.png", "a\nb.png"}
