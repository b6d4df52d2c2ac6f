"""Folders that are written whole or not at all, and pictures inside of pages."""

from __future__ import annotations

import base64
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from naflow_fx.errors import FlowError
from naflow_fx.files import DRAFT


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A path for new files on the file system of `folder`, removed at the end whatever happens.

    In `folder` itself where that exists (it may be a mount point), else in the nearest folder
    above. Raises FlowError where a file is in the way, OSError where nothing can be written.
    """
    base = folder.absolute()
    while not base.exists():
        base = base.parent
    if not base.is_dir():
        raise FlowError(f"{base} is a file, not a folder; choose another place.")
    with tempfile.TemporaryDirectory(prefix=DRAFT, dir=base) as stage:
        yield Path(stage) / "new"


def publish(stage: Path, folder: Path, record: str, is_ours: Callable[[str], bool]) -> None:
    """Move the files of `stage` to `folder`: one rename if that is new, else file by file.

    In a folder that exists, files that its `record` (a JSON file, entry "files") lists and the new
    one does not are removed; files of others, those that aren't `is_ours`, are left alone. The
    record goes last: what it lists is there.
    """
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        stage.rename(folder)
        return
    old, new = ([n for n in _listed(place / record) if is_ours(n)] for place in (folder, stage))
    for name in [*new, record]:
        (folder / name).parent.mkdir(exist_ok=True)
        (stage / name).replace(folder / name)
    for name in set(old).difference(new):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(stage)


def _listed(record: Path) -> list[str]:
    """The files that a record says were written with it; [] without one."""
    try:
        found = json.loads(record.read_text(encoding="utf-8"))["files"]
        return [name for name in found if isinstance(name, str)]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def plain_json(record: Any) -> str:
    """A record as the text of a JSON file; numbers that aren't finite are an error."""
    return json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def data_uri(picture: Image.Image, form: str, **options: Any) -> str:
    """A picture as the address of an image that is inside of a page.

    Args:
        picture: what is shown.
        form: "png" or "jpeg".
        options: of Pillow's writer.
    """
    file = io.BytesIO()
    picture.save(file, form, **options)
    return f"data:image/{form};base64,{base64.b64encode(file.getvalue()).decode()}"
